//! PURE: judges the kernel, and the limits and settings of the host.

use std::io::{self, ErrorKind};
use std::time::Duration;

use crate::doctor::facts::{Facts, Kernel, Settings, TlsSuite};
use crate::doctor::judge::{Findings, answer};
use crate::doctor::report::{Check, Group, State};

/// What README.md asks for.
const OLDEST: (u32, u32) = (5, 10);
/// Descriptors below which a busy server runs out of them first.
const DESCRIPTORS_LOW: u64 = 16 * 1024;
/// Kept files need a mapping each, at most 512, and threads and libraries some more.
const MAPPINGS_LOW: u64 = 4096;
/// Over a way of 50 ms this is 20 MB/s. Linux takes 4 MiB by itself, less on small hosts.
const SEND_BUFFER_LOW: u64 = 1 << 20;

pub(crate) fn judge(facts: &Facts, findings: &mut Findings) {
    let kernel = &facts.kernel;
    let uring_disabled = facts.settings.io_uring_disabled.as_deref();
    findings.checks.extend([
        version(kernel),
        zerocopy(&kernel.zerocopy_sends),
        tls(&kernel.tls, facts.user == 0),
    ]);
    findings.checks.extend(kernel.tls_suites.iter().map(tls_suite));
    findings.checks.push(io_uring(&kernel.io_uring, uring_disabled));
    let settings = &facts.settings;
    findings.checks.push(congestion_control(settings));
    findings.checks.push(unsent(&kernel.unsent_bound));
    findings.checks.extend(send_buffer(settings));
    findings.checks.extend(receive_buffer(settings));
    findings.checks.push(descriptors(settings));
    findings.checks.extend(mappings(settings));
    findings.checks.extend(pipe_pages(settings, facts.user));
    findings.checks.push(user(facts.user));
}

fn version(kernel: &Kernel) -> Check {
    let Kernel { release, machine, .. } = kernel;
    let check = |state| Check::new(Group::Kernel, "linux", state, &format!("{release} {machine}"));
    let mut numbers = release.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) if (major, minor) < OLDEST => check(State::Note)
            .meaning("older than what pagewire is made for")
            .advice("Linux 5.10 or newer"),
        (Some(_), Some(_)) => check(State::Good).meaning("all routes are there from 5.10 on"),
        _ => check(State::Unknown).meaning("not a version as Linux has them"),
    }
}

fn zerocopy(found: &io::Result<()>) -> Check {
    let check = |value: &str| Check::new(Group::Kernel, "msg-zerocopy", State::Info, value);
    match answer(found) {
        None => check("there").meaning(
            "for bytes that are in no file; not taken here, and on loopback the kernel copies \
             them after all",
        ),
        Some(error) => check(&format!("no ({error})")).meaning("not taken here"),
    }
}

fn tls(found: &io::Result<()>, is_root: bool) -> Check {
    let check = |value: &str| Check::new(Group::Kernel, "ktls", State::Info, value);
    match found {
        Ok(()) => check("available").meaning("the kernel can encrypt what sendfile sends"),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let absent = check("absent")
                .meaning("pagewire encrypts TLS by itself; plain HTTP is not touched");
            if is_root {
                absent.advice("only a kernel built with CONFIG_TLS has it")
            } else {
                absent.advice("as root: modprobe tls, where the kernel was built with CONFIG_TLS")
            }
        }
        Err(error) => {
            let value = format!("not known ({error})");
            check(&value).meaning("asking for it failed; plain HTTP is not touched")
        }
    }
}

/// Who seals the records of HTTPS, unless `--tls-records` says so.
fn tls_suite(suite: &TlsSuite) -> Check {
    let value = match &suite.cost {
        Ok((kernel, here)) => {
            let hundredths = |time: &Duration| time.as_secs_f64() * 100.0;
            let (kernel, here) = (hundredths(kernel), hundredths(here));
            format!("{}: kernel {kernel:.1} cs/GB, pagewire {here:.1} cs/GB", suite.name)
        }
        Err(why) => format!("{}: the kernel does not ({why})", suite.name),
    };
    Check::new(Group::Kernel, "tls-records", State::Info, &value).meaning(
        if suite.kernel_is_taken {
            "the kernel seals the records of HTTPS, and files leave by sendfile"
        } else {
            "pagewire seals the records of HTTPS, from where the file is mapped or was read to"
        },
    )
}

fn io_uring(found: &io::Result<()>, disabled: Option<&str>) -> Check {
    let why = match disabled {
        Some("1") => "kernel.io_uring_disabled is 1: only for some",
        Some("2") => "kernel.io_uring_disabled is 2",
        _ => "a filter of system calls forbids it",
    };
    let value = match found {
        Ok(()) => "allowed".to_owned(),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => format!("forbidden ({why})"),
        Err(error) => format!("no ({error})"),
    };
    Check::new(Group::Kernel, "io-uring", State::Info, &value)
        .meaning("not taken here: it has no sendfile, and its splice goes through other threads")
}

fn congestion_control(settings: &Settings) -> Check {
    let check = |state, value: &str| Check::new(Group::Host, "congestion-control", state, value);
    match settings.congestion_control.as_deref() {
        None => check(State::Unknown, "not found").meaning("/proc/sys cannot be read"),
        Some(name) if name.starts_with("bbr") => check(State::Note, name).meaning(
            "it paces: timers that on loopback can cost more CPU than sendfile \
             (docs/benchmarks.md). `pagewire serve` takes reno on loopback listeners; other \
             servers do not",
        ),
        Some(name) => check(State::Good, name).meaning("it does not pace: no timers on the way"),
    }
}

fn unsent(found: &io::Result<u32>) -> Check {
    let check = |state, value: &str| Check::new(Group::Host, "tcp-notsent-lowat", state, value);
    match found {
        Ok(bytes) => check(State::Good, &in_bytes(u64::from(*bytes)))
            .meaning("set for each connection: a slow client holds no more unsent pages than this"),
        Err(error) => check(State::Note, &format!("no ({error})"))
            .meaning("a slow client holds as many pages as the send buffer takes"),
    }
}

fn send_buffer(settings: &Settings) -> Option<Check> {
    let max = largest(settings.send_buffer.as_deref()?)?;
    let check = |state| Check::new(Group::Host, "tcp-wmem", state, &in_bytes(max));
    let meaning = "what one connection may have under way at most, and so its rate over a long way";
    Some(if max < SEND_BUFFER_LOW {
        check(State::Note)
            .meaning(format!("{meaning}: 1 MiB is 20 MB/s at 50 ms, and this is less"))
            .advice("sysctl -w net.ipv4.tcp_wmem='4096 16384 4194304'")
    } else {
        check(State::Good).meaning(meaning)
    })
}

fn receive_buffer(settings: &Settings) -> Option<Check> {
    let max = largest(settings.receive_buffer.as_deref()?)?;
    let check = Check::new(Group::Host, "tcp-rmem", State::Info, &in_bytes(max));
    Some(check.meaning("what programs on this host may have received and not yet read"))
}

/// The last of the three numbers of tcp_wmem and tcp_rmem: least, first, most.
fn largest(triple: &str) -> Option<u64> {
    triple.split(' ').nth(2)?.parse().ok()
}

fn descriptors(settings: &Settings) -> Check {
    let (soft, hard) = settings.descriptors;
    let word = |limit: Option<u64>| limit.map_or("unlimited".to_owned(), |n| n.to_string());
    let value = format!("{}, may be raised to {}", word(soft), word(hard));
    let check = |state| Check::new(Group::Host, "descriptors", state, &value);
    let meaning = "`pagewire serve` raises it by itself; a connection takes one, an open file one";
    match hard {
        Some(hard) if hard < DESCRIPTORS_LOW => check(State::Note)
            .meaning(meaning)
            .advice("raise the hard limit: LimitNOFILE=65536 in the unit, or ulimit -Hn as root"),
        _ => check(State::Good).meaning(meaning),
    }
}

fn mappings(settings: &Settings) -> Option<Check> {
    let max: u64 = settings.mappings_max.as_deref()?.parse().ok()?;
    let check = |state| Check::new(Group::Host, "max-map-count", state, &max.to_string());
    let meaning = "each file that is kept open has a mapping, at most 512";
    Some(if max < MAPPINGS_LOW {
        check(State::Note).meaning(meaning).advice("sysctl -w vm.max_map_count=65530")
    } else {
        check(State::Good).meaning(meaning)
    })
}

fn pipe_pages(settings: &Settings, user: u32) -> Option<Check> {
    let pages = settings.pipe_pages_soft.as_deref()?;
    let check = Check::new(Group::Host, "pipe-user-pages-soft", State::Info, pages);
    Some(check.meaning(if user == 0 {
        "does not bind root"
    } else {
        "beyond so many pages in pipes, sendfile and splice of this user move 8 KiB at a time and \
         not 64 KiB: every thread that sends has one, of 16 pages"
    }))
}

fn user(user: u32) -> Check {
    if user == 0 {
        return Check::new(Group::Host, "user", State::Info, "root")
            .meaning("may ask and measure all of the above");
    }
    Check::new(Group::Host, "user", State::Info, &user.to_string()).meaning(
        "root would add: measuring in directories that this user may not write to, cachestat for \
         the files of others, loading the module tls, and the right to change what is named here",
    )
}

fn in_bytes(bytes: u64) -> String {
    match bytes {
        _ if bytes >= 1 << 20 && bytes.is_multiple_of(1 << 20) => format!("{} MiB", bytes >> 20),
        _ if bytes >= 1 << 10 && bytes.is_multiple_of(1 << 10) => format!("{} KiB", bytes >> 10),
        _ => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings {
            congestion_control: None,
            send_buffer: None,
            receive_buffer: None,
            io_uring_disabled: None,
            mappings_max: None,
            pipe_pages_soft: None,
            descriptors: (Some(1024), None),
        }
    }

    #[test]
    fn versions() {
        for (release, state) in [
            ("6.18.44-fc", State::Good),
            ("5.10.0-28-amd64", State::Good),
            ("6.1-rc3", State::Good),
            ("5.9.16", State::Note),
            ("4.19", State::Note),
            ("unknown", State::Unknown),
        ] {
            let kernel = Kernel {
                release: release.to_owned(),
                machine: "x86_64".to_owned(),
                zerocopy_sends: Ok(()),
                tls: Ok(()),
                tls_suites: Vec::new(),
                io_uring: Ok(()),
                unsent_bound: Ok(1),
            };
            assert_eq!(version(&kernel).state, state, "{release}");
        }
    }

    #[test]
    fn tls_records_are_sealed_where_it_is_cheaper() {
        let time = Duration::from_millis;
        for (cost, kernel_is_taken, value, meaning) in [
            (
                Ok((time(213), time(400))),
                true,
                "TLS 1.3 AES-128-GCM: kernel 21.3 cs/GB, pagewire 40.0 cs/GB",
                "the kernel seals",
            ),
            (
                Err("Invalid argument (os error 22)".to_owned()),
                false,
                "TLS 1.3 AES-128-GCM: the kernel does not (Invalid argument (os error 22))",
                "pagewire seals",
            ),
        ] {
            let suite = TlsSuite { name: "TLS 1.3 AES-128-GCM", cost, kernel_is_taken };
            let check = tls_suite(&suite);
            assert_eq!(check.value, value);
            assert!(check.meaning.starts_with(meaning), "{check:?}");
        }
    }

    #[test]
    fn what_may_be_too_little_is_noted_with_a_way_out() {
        let little = Settings {
            send_buffer: Some("4096 16384 131072".to_owned()),
            mappings_max: Some("1000".to_owned()),
            descriptors: (Some(1024), Some(4096)),
            ..settings()
        };
        let enough = Settings {
            send_buffer: Some("4096 16384 4194304".to_owned()),
            mappings_max: Some("65530".to_owned()),
            descriptors: (Some(1024), Some(65536)),
            ..settings()
        };
        for (settings, state) in [(little, State::Note), (enough, State::Good)] {
            let checks =
                [send_buffer(&settings), mappings(&settings), Some(descriptors(&settings))];
            for check in checks.into_iter().map(Option::unwrap) {
                assert_eq!(check.state, state, "{check:?}");
                assert_eq!(check.advice.is_some(), state == State::Note, "{check:?}");
            }
        }
    }

    #[test]
    fn what_cannot_be_read_is_left_out_or_said() {
        let settings = settings();
        assert!(send_buffer(&settings).is_none() && mappings(&settings).is_none());
        assert_eq!(congestion_control(&settings).state, State::Unknown);
    }

    #[test]
    fn sizes() {
        for (bytes, text) in [(0, "0 bytes"), (1500, "1500 bytes"), (1024, "1 KiB")] {
            assert_eq!(in_bytes(bytes), text);
        }
        assert_eq!(in_bytes(4 << 20), "4 MiB");
    }
}
