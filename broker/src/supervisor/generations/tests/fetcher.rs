//! The third process: it comes and goes, and files are served all the same.

use super::Role::Fetcher;
use super::*;

/// What is done for every generation with a proxy.
fn started(number: u64) -> [Action; 2] {
    [Action::Start(number), Action::StartFetcher(number)]
}

fn new() -> Trial {
    let now = Instant::now();
    let rules = Rules {
        sandbox: Sandbox::Strict,
        uid: 990,
        drain_timeout: 5 * SECOND,
        ping_every: 5 * SECOND,
        proxy: true,
    };
    let mut trial = Trial {
        generations: Generations::new(rules, now),
        now,
    };
    assert_eq!(trial.actions(), started(1));
    trial
}

/// One generation that serves with its fetcher.
fn serving() -> Trial {
    let mut trial = new();
    assert_eq!(trial.ready(1), []);
    let actions = trial.report(1, Fetcher, Report::Ready(FACTS));
    assert_eq!(announced(&actions), Some(Some(FACTS)));
    trial
}

/// What is said of the fetcher when a generation serves.
fn announced(actions: &[Action]) -> Option<Option<Facts>> {
    actions.iter().find_map(|action| match action {
        Action::Announce { fetcher, .. } => Some(*fetcher),
        _ => None,
    })
}

fn restarting(milliseconds: u64) -> Note {
    Note::FetcherRestarting(1, Duration::from_millis(milliseconds))
}

/// Lets time pass until something else than a ping is to be done.
fn wait(trial: &mut Trial) -> Vec<Action> {
    loop {
        let mut actions = trial.wait();
        actions.retain(|action| !matches!(action, Action::Tell(_, _, Order::Ping)));
        for role in [Broker, Worker, Fetcher] {
            if trial
                .generations
                .find(1)
                .is_some_and(|g| g.member(role).pinged)
            {
                trial.report(1, role, Report::Counts(Counts::default()));
            }
        }
        if !actions.is_empty() {
            return actions;
        }
    }
}

#[test]
fn a_generation_waits_for_its_fetcher() {
    serving();
}

#[test]
fn a_fetcher_that_dies_is_started_again_alone() {
    let mut trial = serving();
    let end = End::Killed(Signal::SIGSYS);
    let actions = trial.end(1, Fetcher, end);
    assert_eq!(
        notes(&actions),
        [&Note::Died(1, Fetcher, end), &restarting(100)]
    );
    assert_eq!(actions.len(), 2);
    assert_eq!(wait(&mut trial), [Action::StartFetcher(1)]);
    let actions = trial.report(1, Fetcher, Report::Ready(FACTS));
    assert_eq!(notes(&actions), [&Note::FetcherBack(1)]);
    assert_eq!(trial.generations.serving(), Some(1));
}

#[test]
fn a_fetcher_that_dies_again_and_again_waits_longer_and_is_never_given_up() {
    let mut trial = serving();
    for delay in [100, 200, 400, 800, 1600, 30_000, 30_000] {
        let actions = trial.end(1, Fetcher, KILLED);
        assert_eq!(notes(&actions)[1], &restarting(delay));
        assert_eq!(wait(&mut trial), [Action::StartFetcher(1)]);
    }
    assert_eq!(trial.generations.serving(), Some(1));
}

#[test]
fn files_are_served_without_a_fetcher_that_can_not_be_started() {
    let mut trial = new();
    trial.generations.handle_fetcher_start_failure(1, trial.now);
    assert_eq!(notes(&trial.actions()), [&restarting(100)]);
    let actions = trial.ready(1);
    assert_eq!(announced(&actions), Some(None));
    assert_eq!(wait(&mut trial), [Action::StartFetcher(1)]);
}

#[test]
fn files_are_served_without_a_fetcher_that_hangs_at_its_start() {
    let mut trial = new();
    assert_eq!(trial.ready(1), []);
    let actions = trial.wait();
    let kill = Action::Kill(1, Fetcher);
    assert_eq!(actions, [Action::Note(Note::FetcherNotReady(1)), kill]);
    let actions = trial.end(1, Fetcher, End::Ordered);
    assert_eq!(notes(&actions), [&restarting(100)]);
    assert_eq!(announced(&actions), Some(None));
}

#[test]
fn a_reload_without_a_fetcher_leaves_the_old_generation_serving() {
    let mut trial = serving();
    trial.generations.handle_reload(trial.now);
    assert_eq!(trial.actions(), started(2));
    trial.generations.handle_fetcher_start_failure(2, trial.now);
    let actions = trial.actions();
    assert_eq!(notes(&actions), [&Note::ReloadFailed]);
    trial.gone(2);
    assert_eq!(trial.generations.phases().len(), 1);
    assert_eq!(trial.generations.serving(), Some(1));
}

#[test]
fn a_reload_brings_a_new_fetcher_and_the_old_one_ends_with_its_broker() {
    let mut trial = serving();
    trial.generations.handle_reload(trial.now);
    trial.actions();
    trial.ready(2);
    let retire = |role| Action::Tell(1, role, Order::Retire);
    let actions = trial.report(2, Fetcher, Report::Ready(FACTS));
    assert_eq!(actions, [retire(Broker), retire(Fetcher)]);
    let actions = trial.report(1, Broker, Report::Retired);
    assert_eq!(actions[0], retire(Worker));
    assert_eq!(announced(&actions), Some(Some(FACTS)));
    for role in [Worker, Broker, Fetcher] {
        assert_eq!(trial.generations.phases().len(), 2);
        assert_eq!(trial.end(1, role, End::Exited(0)), []);
    }
    assert_eq!(trial.generations.phases().len(), 1);
}

#[test]
fn a_generation_that_finishes_its_transfers_keeps_a_fetcher() {
    let mut trial = serving();
    trial.generations.handle_reload(trial.now);
    trial.actions();
    trial.ready(2);
    trial.report(2, Fetcher, Report::Ready(FACTS));
    trial.report(1, Broker, Report::Retired);
    let actions = trial.end(1, Fetcher, KILLED);
    assert_eq!(notes(&actions)[1], &restarting(100));
    assert_eq!(wait(&mut trial), [Action::StartFetcher(1)]);
}

#[test]
fn a_fetcher_that_is_not_trusted_is_replaced_alone() {
    let bad = Facts {
        system_calls: 0,
        ..FACTS
    };
    for (role, report) in [
        (Fetcher, Report::Retired),
        (Fetcher, Report::Distrust),
        (Fetcher, Report::Ready(bad)),
        (Fetcher, Report::Counts(Counts::default())),
        (Broker, Report::Distrust),
    ] {
        let mut trial = serving();
        let actions = trial.report(1, role, report);
        assert_eq!(
            actions.last(),
            Some(&Action::Kill(1, Fetcher)),
            "{report:?}"
        );
        let actions = trial.end(1, Fetcher, End::Ordered);
        assert_eq!(notes(&actions), [&restarting(100)], "{report:?}");
        assert_eq!(trial.generations.serving(), Some(1), "{report:?}");
    }
}

#[test]
fn a_worker_may_not_speak_for_the_broker() {
    let mut trial = serving();
    let actions = trial.report(1, Worker, Report::Distrust);
    assert!(matches!(notes(&actions)[0], Note::Breach(1, Worker, _)));
    assert!(actions.contains(&Action::Kill(1, Broker)));
}

#[test]
fn a_fetcher_that_answers_no_ping_is_killed_alone() {
    let mut trial = serving();
    let actions = loop {
        let actions = trial.wait();
        for role in [Broker, Worker] {
            trial.report(1, role, Report::Counts(Counts::default()));
        }
        if !notes(&actions).is_empty() {
            break actions;
        }
    };
    assert_eq!(notes(&actions), [&Note::Stuck(1, Fetcher, 30 * SECOND)]);
    assert_eq!(actions.last(), Some(&Action::Kill(1, Fetcher)));
    assert_eq!(trial.generations.serving(), Some(1));
}

#[test]
fn with_the_broker_the_fetcher_ends_too() {
    let mut trial = serving();
    let actions = trial.end(1, Broker, KILLED);
    assert!(actions.contains(&Action::Kill(1, Fetcher)));
    trial.end(1, Worker, End::Ordered);
    assert_eq!(trial.generations.phases().len(), 1);
    assert_eq!(trial.end(1, Fetcher, End::Exited(1)), []);
    assert_eq!(trial.generations.phases().len(), 0);
    assert_eq!(wait(&mut trial), started(2));
}

#[test]
fn a_stop_ends_all_three() {
    let mut trial = serving();
    trial.generations.handle_stop(trial.now);
    trial.generations.handle_stop(trial.now);
    let stop = |role| Action::Tell(1, role, Order::Stop);
    let actions = trial.actions();
    assert!(actions.ends_with(&[stop(Worker), stop(Fetcher), stop(Broker)]));
    for role in [Fetcher, Worker, Broker] {
        assert_eq!(trial.finished(), None);
        assert_eq!(trial.end(1, role, End::Exited(0)), []);
    }
    assert_eq!(trial.finished(), Some(Finish::Stopped));
}

#[test]
fn a_generation_that_can_not_be_started_waits_for_no_fetcher() {
    let mut trial = new();
    trial.generations.handle_start_failure(1, trial.now);
    trial.generations.handle_fetcher_start_failure(1, trial.now);
    assert_eq!(trial.finished(), Some(Finish::NeverReady));
}
