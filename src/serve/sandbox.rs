//! What the server gives up before it serves: by landlock (Linux 5.13), all files but those that
//! it is to read; by seccomp, system calls that no file server needs. As much of both as the
//! kernel has; a thread that starts later inherits them.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};
use pagewire_http::ListenAddress;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

use crate::config::Config;
use crate::serve::{AdminAddress, acme, doors};

/// What of the sandbox this kernel has.
#[derive(Debug)]
pub(crate) struct Sandbox {
    /// Files outside of it cannot be opened any more.
    pub(crate) closed: bool,
    /// For the start lines.
    pub(crate) said: String,
}

/// Closes the sandbox around this thread, and those that it starts from now on.
pub(crate) fn close(config: &Config) -> Sandbox {
    if config.flags.no_sandbox {
        return Sandbox { closed: false, said: "off (--no-sandbox)".to_owned() };
    }
    let files = give_up_files(config);
    let closed =
        matches!(files, Ok(RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced));
    let files = match files {
        Ok(RulesetStatus::FullyEnforced) => "only served files can be read (landlock)".to_owned(),
        Ok(RulesetStatus::PartiallyEnforced) => {
            "only served files can be read (landlock, as far as this kernel has it)".to_owned()
        }
        Ok(RulesetStatus::NotEnforced) => "this kernel has no landlock".to_owned(),
        Err(error) => format!("no landlock ({error})"),
    };
    let calls = match give_up_calls() {
        Ok(()) => "no programs can be started, nothing mounted or traced (seccomp)".to_owned(),
        Err(error) => format!("no seccomp ({error})"),
    };
    Sandbox { closed, said: format!("{files}; {calls}") }
}

fn give_up_files(config: &Config) -> Result<RulesetStatus, RulesetError> {
    let all = AccessFs::from_all(ABI::V6);
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let write = AccessFs::ReadFile | AccessFs::WriteFile;
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(all)?
        .scope(Scope::AbstractUnixSocket | Scope::Signal)?
        .create()?;
    let mut allow = |path: &Path, access: BitFlags<AccessFs>| -> Result<(), RulesetError> {
        // What is not there cannot be allowed, and needs not be.
        if let Ok(path) = PathFd::new(path) {
            (&mut ruleset).add_rule(PathBeneath::new(path, access))?;
        }
        Ok(())
    };
    for mount in &config.mounts {
        allow(&mount.site.directory, read)?;
    }
    for path in config.paths().into_iter().chain(doors::files(&config.flags)) {
        allow(&neighbourhood(&path), read)?;
    }
    let flags = &config.flags;
    for address in flags.listen.iter().chain(&flags.tls.https_redirect) {
        if let ListenAddress::Unix { path, .. } = address {
            allow(&neighbourhood(path), AccessFs::MakeSock | AccessFs::RemoveFile)?;
        }
    }
    if let Some(AdminAddress::Unix { path, .. }) = &flags.admin {
        // It is there already, and goes at the end.
        allow(&neighbourhood(path), AccessFs::RemoveFile.into())?;
    }
    if let Some(log) = &config.flags.log_file {
        // To be made anew when it was moved away.
        allow(&neighbourhood(log), AccessFs::WriteFile | AccessFs::MakeReg)?;
    }
    if !config.flags.tls.acme.acme_domain.is_empty() {
        for path in acme::paths() {
            allow(&path, if path.is_dir() { read } else { AccessFs::ReadFile.into() })?;
        }
        if let Some(state) = doors::state_directory(&config.flags) {
            let replace = AccessFs::MakeReg | AccessFs::RemoveFile;
            allow(&state.join("acme"), read | write | replace)?;
        }
    }
    allow(Path::new("/proc"), read)?;
    // What cold files are spliced to.
    allow(Path::new("/dev/null"), write)?;
    Ok(ruleset.restrict_self()?.ruleset)
}

/// The directory of a file, behind all links: what takes its place is to be found, too.
fn neighbourhood(path: &Path) -> PathBuf {
    let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    if real.is_dir() {
        return real;
    }
    match real.parent() {
        Some(parent) if parent.as_os_str().is_empty() => PathBuf::from("."),
        Some(parent) => parent.to_owned(),
        None => real,
    }
}

/// System calls that answer EPERM from now on.
const GIVEN_UP: &[i64] = &[
    // Other programs, and looking into them.
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_perf_event_open,
    libc::SYS_personality,
    // Mounts and namespaces.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_open_by_handle_at,
    libc::SYS_quotactl,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    // The kernel itself.
    libc::SYS_bpf,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_syslog,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_vhangup,
];

fn give_up_calls() -> Result<(), Box<dyn std::error::Error>> {
    let calls = GIVEN_UP.iter().map(|call| (*call, Vec::new())).collect();
    let refused = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    let architecture = std::env::consts::ARCH.try_into()?;
    let filter = SeccompFilter::new(calls, SeccompAction::Allow, refused, architecture)?;
    let program: BpfProgram = filter.try_into()?;
    Ok(seccompiler::apply_filter(&program)?)
}
