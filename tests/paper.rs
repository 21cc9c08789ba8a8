//! Completions and manual pages: every flag is in them, because they are made from the flags.

use std::fs;
use std::process::Command;

use super::support::{need, pagewire, plain_dir};

fn printed(arguments: &[&str]) -> String {
    let output = pagewire(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The long flags of a command, as its help has them.
fn flags_of(command: &str) -> Vec<String> {
    let help = printed(&[command, "--help"]);
    let first_words = help.lines().filter_map(|line| {
        let line = line.trim_start();
        let line = line.strip_prefix("-h, ").or(line.strip_prefix("-V, ")).unwrap_or(line);
        line.strip_prefix("--")?.split([' ', '[']).next()
    });
    let flags: Vec<String> = first_words.map(str::to_owned).collect();
    assert!(flags.len() > 1, "{help}");
    flags
}

const COMMANDS: [&str; 3] = ["serve", "doctor", "lab"];

#[test]
fn every_flag_is_completed_in_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let text = printed(&["completions", shell]);
        for flag in COMMANDS.iter().flat_map(|command| flags_of(command)) {
            let dashed = if shell == "fish" { format!("-l {flag}") } else { format!("--{flag}") };
            assert!(text.contains(&dashed), "{shell} lacks {dashed}");
        }
    }
}

#[test]
fn completions_are_valid_for_bash() {
    let dir = plain_dir();
    let file = dir.path().join("pagewire");
    fs::write(&file, printed(&["completions", "bash"])).unwrap();
    let asks = format!(
        "source {}; COMP_WORDS=(pagewire serve --show-); COMP_CWORD=2; \
         _pagewire pagewire --show- serve; echo ${{COMPREPLY[@]}}",
        file.display()
    );
    let output = Command::new("bash").args(["-uc", &asks]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "--show-config", "{output:?}");
}

#[test]
fn every_flag_is_in_the_manual() {
    let dir = plain_dir();
    let folder = dir.path().join("man1");
    printed(&["man", folder.to_str().unwrap()]);
    let whole = printed(&["man"]);
    for command in COMMANDS {
        let page = fs::read_to_string(folder.join(format!("pagewire-{command}.1"))).unwrap();
        for flag in flags_of(command) {
            let dashed = format!("\\-\\-{}", flag.replace('-', "\\-"));
            assert!(page.contains(&dashed) && whole.contains(&dashed), "{command}: {dashed}");
        }
    }
    assert!(folder.join("pagewire.1").is_file());
    if need("man") {
        let page = folder.join("pagewire-serve.1");
        let shown = Command::new("man").args(["--warnings", "-l"]).arg(page).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&shown.stderr), "");
        assert!(String::from_utf8_lossy(&shown.stdout).contains("pagewire serve"));
    }
}
