//! What came of all trials, for people and as JSON.

use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use r_tftpd_broker::control::Facts;
use r_tftpd_broker::settings::Sandbox;
use r_tftpd_broker::supervisor::self_test::{InForce, Met, SelfTest, Trial};
use r_tftpd_broker::supervisor::{Error, Role, Settings};
use serde_json::{Value, json};

use super::missing::{self, Missing};
use super::probe::{Expected, Group, Needs, Probe};
use super::{BROKER, FETCHER, WORKER};

/// Tries everything, and says what came of it. Exit status 0 if nothing surprised, else 1.
///
/// # Errors
/// What keeps the service from starting; a signal.
pub fn run(settings: &Settings, json: bool) -> Result<ExitCode, Error> {
    let begin = Instant::now();
    let self_test = SelfTest::new(settings)?;
    let in_force = self_test.in_force();
    let all = [
        Some(&in_force.broker),
        Some(&in_force.worker),
        in_force.fetcher.as_ref(),
    ];
    let confined = all
        .into_iter()
        .flatten()
        .all(|facts| facts.system_calls > 0);
    // Without a filter, all would be done in earnest.
    let rows = if confined {
        let rows = rows(in_force);
        let trials: Vec<_> = rows.iter().map(Row::trial).collect();
        let met = self_test.run(&trials)?;
        rows.into_iter().zip(met).collect()
    } else {
        Vec::new()
    };
    let report = Report {
        in_force,
        sandbox: settings.sandbox,
        missing: missing::all(in_force),
        confined,
        rows,
        took: begin.elapsed(),
    };
    let text = if json {
        format!("{:#}\n", report.json())
    } else {
        report.to_string()
    };
    // Nobody is left to be told if this fails, but for the exit status.
    let written = io::stdout().write_all(text.as_bytes()).is_ok();
    Ok(if report.is_clean() && written {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// What is tried where this is in force.
fn rows(in_force: &InForce) -> Vec<Row> {
    let applies = |group: &&Group| match group.needs {
        Needs::Nothing => true,
        Needs::Proxy => in_force.fetcher.is_some(),
        Needs::CacheDirectory => in_force.has_cache,
        Needs::Ports => in_force.fetcher.is_some() && !in_force.ports.is_empty(),
    };
    let of = |role, groups: &'static [Group]| {
        let groups = groups.iter().filter(applies);
        groups.flat_map(move |group| {
            group
                .probes
                .iter()
                .map(move |probe| Row { role, group, probe })
        })
    };
    of(Role::Worker, WORKER)
        .chain(of(Role::Broker, BROKER))
        .chain(of(Role::Fetcher, FETCHER))
        .collect()
}

/// One line of the table.
#[derive(Clone, Copy, Debug)]
struct Row {
    role: Role,
    group: &'static Group,
    probe: &'static Probe,
}

impl Row {
    fn trial(&self) -> Trial {
        Trial {
            role: self.role,
            name: self.probe.name.into(),
            scene: self.group.scene,
        }
    }

    fn judge(&self, met: &Met, in_force: &InForce) -> Verdict {
        let facts = match self.role {
            Role::Broker => in_force.broker,
            Role::Worker => in_force.worker,
            Role::Fetcher => in_force.fetcher.unwrap_or_default(),
        };
        judge(self.probe.expected, met, &facts, in_force.broker.openat2)
    }
}

/// What a row comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// As expected.
    Pass,
    /// Possible, because a protection is missing.
    Missing,
    /// A surprise.
    Fail,
}

fn judge(expected: Expected, met: &Met, facts: &Facts, openat2: bool) -> Verdict {
    let failed = |errno: Errno| {
        let number = |errno: Errno| Met::Failed(errno as i32);
        *met == number(errno) || (!openat2 && *met == number(Errno::ENOSYS))
    };
    let is_expected = match expected {
        Expected::Killed => *met == Met::Killed,
        Expected::Fails(errno) => failed(errno),
        // Permissions may stand in the way all the same.
        Expected::Landlock(abi) if facts.landlock_abi < abi => {
            let possible = matches!(met, Met::Passed | Met::Failed(_));
            if possible && !failed(Errno::EACCES) && !failed(Errno::EPERM) {
                return Verdict::Missing;
            }
            possible
        }
        Expected::Landlock(_) => failed(Errno::EACCES),
        Expected::Harmless => matches!(met, Met::Passed | Met::Failed(_)),
        Expected::Possible => *met == Met::Passed,
        Expected::Replaced => matches!(met, Met::Replaced(_)),
    };
    if is_expected {
        Verdict::Pass
    } else {
        Verdict::Fail
    }
}

/// All that there is to say.
struct Report<'s> {
    in_force: &'s InForce,
    sandbox: Sandbox,
    missing: Vec<Missing>,
    confined: bool,
    rows: Vec<(Row, Met)>,
    took: Duration,
}

impl Report<'_> {
    fn count(&self, verdict: Verdict) -> usize {
        let verdicts = self
            .rows
            .iter()
            .map(|(row, met)| row.judge(met, self.in_force));
        verdicts.filter(|found| *found == verdict).count()
    }

    fn is_clean(&self) -> bool {
        self.confined && self.count(Verdict::Fail) == 0
    }

    /// The longest time until a set served after another one was ended.
    fn slowest(&self) -> Duration {
        let times = self.rows.iter().filter_map(|(_, met)| match met {
            Met::Replaced(time) => Some(*time),
            _ => None,
        });
        times.max().unwrap_or_default()
    }

    fn processes(&self) -> impl Iterator<Item = (&'static str, &Facts)> {
        let fetcher = self.in_force.fetcher.as_ref();
        [
            Some(("broker", &self.in_force.broker)),
            Some(("worker", &self.in_force.worker)),
            fetcher.map(|facts| ("fetcher", facts)),
        ]
        .into_iter()
        .flatten()
    }

    fn json(&self) -> Value {
        let in_force = self.in_force;
        let processes: serde_json::Map<_, _> = self
            .processes()
            .map(|(name, facts)| {
                let value = json!({
                    "system_calls": facts.system_calls,
                    "landlock_abi": facts.landlock_abi,
                    "no_new_privs": facts.no_new_privs,
                    "no_capabilities": facts.no_capabilities,
                    "memory_deny_write_execute": facts.mdwe,
                });
                (name.to_owned(), value)
            })
            .collect();
        let missing: Vec<_> = self
            .missing
            .iter()
            .map(|missing| json!({"what": missing.what, "follows": missing.follows}))
            .collect();
        let actions: Vec<_> = self
            .rows
            .iter()
            .map(|(row, met)| {
                json!({
                    "process": row.role.to_string(),
                    "group": row.group.name,
                    "action": row.probe.name,
                    "expected": expected(row.probe.expected),
                    "got": got(met),
                    "verdict": row.judge(met, in_force).to_string(),
                })
            })
            .collect();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "kernel": in_force.kernel,
            "architecture": std::env::consts::ARCH,
            "user": in_force.user,
            "uid": in_force.uid,
            "sandbox": level(self.sandbox),
            "paths": paths(in_force),
            "processes": processes,
            "missing": missing,
            "actions": actions,
            "tried": self.rows.len(),
            "passed": self.count(Verdict::Pass),
            "possible": self.count(Verdict::Missing),
            "surprises": self.count(Verdict::Fail),
            "slowest_recovery_ms": u64::try_from(self.slowest().as_millis()).unwrap_or(u64::MAX),
            "seconds": self.took.as_secs_f64(),
            "clean": self.is_clean(),
        })
    }
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut last = None;
        for (row, met) in &self.rows {
            let here = (row.role, row.group.name);
            if last != Some(here) {
                writeln!(
                    f,
                    "{}{}: {}",
                    if last.is_some() { "\n" } else { "" },
                    here.0,
                    here.1
                )?;
            }
            last = Some(here);
            writeln!(
                f,
                "  {:<7}  {:<58}  {:<20}  {}",
                row.judge(met, self.in_force).to_string(),
                row.probe.name,
                expected(row.probe.expected),
                got(met),
            )?;
        }
        let in_force = self.in_force;
        writeln!(
            f,
            "\nr-tftpd {} on Linux {} ({}) as {} (uid {}), --sandbox {}",
            env!("CARGO_PKG_VERSION"),
            in_force.kernel,
            std::env::consts::ARCH,
            in_force.user,
            in_force.uid,
            level(self.sandbox),
        )?;
        writeln!(f, "In force:")?;
        for (name, facts) in self.processes() {
            writeln!(
                f,
                "  {name:<8} {}, {}, no_new_privs {}, capabilities {}, write-execute {}",
                number("system calls", facts.system_calls),
                number("Landlock ABI", facts.landlock_abi),
                if facts.no_new_privs { "set" } else { "NOT SET" },
                if facts.no_capabilities {
                    "none"
                } else {
                    "LEFT"
                },
                if facts.mdwe { "denied" } else { "not denied" },
            )?;
        }
        writeln!(f, "  paths    {}", paths(in_force))?;
        if self.missing.is_empty() {
            writeln!(f, "Missing: nothing")?;
        } else {
            writeln!(f, "Missing:")?;
        }
        for Missing { what, follows } in &self.missing {
            writeln!(f, "  {what}\n    what follows: {follows}")?;
        }
        if !self.confined {
            return writeln!(
                f,
                "NOTHING WAS TRIED: without seccomp every action would be done in earnest"
            );
        }
        writeln!(
            f,
            "{} actions: {} as expected, {} possible for what is missing, {} surprises; {:.1} s, \
             slowest recovery {} ms",
            self.rows.len(),
            self.count(Verdict::Pass),
            self.count(Verdict::Missing),
            self.count(Verdict::Fail),
            self.took.as_secs_f64(),
            self.slowest().as_millis(),
        )?;
        for (row, met) in &self.rows {
            if row.judge(met, in_force) == Verdict::Fail {
                let (role, name) = (row.role, row.probe.name);
                let (expected, got) = (expected(row.probe.expected), got(met));
                writeln!(
                    f,
                    "SURPRISE: {role}: {name}: expected {expected}, got {got}"
                )?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pass => "PASS",
            Self::Missing => "MISSING",
            Self::Fail => "FAIL",
        })
    }
}

fn level(sandbox: Sandbox) -> &'static str {
    match sandbox {
        Sandbox::Strict => "strict",
        Sandbox::BestEffort => "best-effort",
    }
}

fn paths(in_force: &InForce) -> &'static str {
    if in_force.broker.openat2 {
        "openat2"
    } else {
        "walk"
    }
}

fn number(what: &str, value: u32) -> String {
    match value {
        0 => format!("NO {what}"),
        value => format!("{what} {value}"),
    }
}

fn expected(expected: Expected) -> String {
    match expected {
        Expected::Killed => "killed".into(),
        Expected::Fails(errno) => format!("{errno:?}"),
        Expected::Landlock(abi) => format!("EACCES (ABI {abi})"),
        Expected::Harmless => "harmless".into(),
        Expected::Possible => "succeeds".into(),
        Expected::Replaced => "replaced".into(),
    }
}

fn got(met: &Met) -> String {
    match met {
        Met::Killed => "killed".into(),
        Met::Failed(errno) => format!("{:?}", Errno::from_raw(*errno)),
        Met::Passed => "succeeded".into(),
        Met::Replaced(time) => format!("replaced in {} ms", time.as_millis()),
        Met::NotRecovered => "the next set did not serve".into(),
        Met::Nothing => "nobody noticed".into(),
        Met::Other(what) => what.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    const NONE: Facts = Facts {
        uid: 1,
        landlock_abi: 0,
        system_calls: 1,
        mdwe: false,
        no_new_privs: true,
        no_capabilities: true,
        openat2: true,
    };

    #[test]
    fn only_what_is_expected_passes() {
        let denied = Met::Failed(libc::EACCES);
        let replaced = Met::Replaced(Duration::ZERO);
        let fails = Expected::Fails(Errno::EACCES);
        for (expected, right) in [
            (Expected::Killed, Met::Killed),
            (fails, denied.clone()),
            (Expected::Landlock(0), denied.clone()),
            (Expected::Possible, Met::Passed),
            (Expected::Replaced, replaced.clone()),
        ] {
            for met in [
                Met::Killed,
                denied.clone(),
                Met::Failed(libc::EPERM),
                Met::Passed,
                replaced.clone(),
                Met::NotRecovered,
                Met::Nothing,
                Met::Other(String::new()),
            ] {
                let verdict = judge(expected, &met, &NONE, true);
                let wanted = if met == right {
                    Verdict::Pass
                } else {
                    Verdict::Fail
                };
                assert_eq!(verdict, wanted, "{expected:?} {met:?}");
            }
        }
    }

    #[test]
    fn what_landlock_would_stop_is_possible_where_it_is_too_old() {
        let expected = Expected::Landlock(4);
        let facts = |landlock_abi| Facts {
            landlock_abi,
            ..NONE
        };
        let judge = |abi, met| judge(expected, &met, &facts(abi), true);
        assert_eq!(judge(3, Met::Passed), Verdict::Missing);
        assert_eq!(judge(3, Met::Failed(libc::ECONNREFUSED)), Verdict::Missing);
        assert_eq!(judge(3, Met::Failed(libc::EACCES)), Verdict::Pass);
        assert_eq!(judge(3, Met::Killed), Verdict::Fail);
        assert_eq!(judge(4, Met::Passed), Verdict::Fail);
        assert_eq!(judge(4, Met::Failed(libc::EACCES)), Verdict::Pass);
    }

    #[test]
    fn without_openat2_its_calls_fail_as_unknown() {
        let met = Met::Failed(libc::ENOSYS);
        let expected = Expected::Fails(Errno::EACCES);
        assert_eq!(judge(expected, &met, &NONE, false), Verdict::Pass);
        assert_eq!(judge(expected, &met, &NONE, true), Verdict::Fail);
    }

    #[test]
    fn no_process_has_two_deeds_of_the_same_name() {
        for groups in [WORKER, BROKER, FETCHER] {
            let names = groups
                .iter()
                .flat_map(|group| group.probes)
                .map(|probe| probe.name);
            let mut seen = BTreeSet::new();
            for name in names {
                assert!(seen.insert(name), "{name}");
            }
            assert!(seen.len() > 100);
        }
    }
}
