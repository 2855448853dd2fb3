//! Start, trust, death and replacement.

use super::*;

#[test]
fn a_generation_serves_when_both_are_ready() {
    let mut trial = Trial::new();
    assert_eq!(trial.report(1, Worker, Report::Ready(FACTS)), []);
    let actions = trial.report(1, Broker, Report::Ready(FACTS));
    let announce = Action::Announce {
        generation: 1,
        reloaded: false,
        broker: FACTS,
        worker: FACTS,
        fetcher: None,
    };
    assert_eq!(actions, [Action::Tell(1, Broker, Order::Go), announce]);
}

#[test]
fn the_first_generation_is_not_tried_twice() {
    let mut trial = Trial::new();
    let actions = trial.end(1, Worker, End::Exited(1));
    assert_eq!(notes(&actions), [&Note::Died(1, Worker, End::Exited(1))]);
    assert!(actions.ends_with(&kill(1)));
    assert_eq!(trial.finished(), None);
    trial.end(1, Broker, KILLED);
    assert_eq!(trial.finished(), Some(Finish::NeverReady));
}

#[test]
fn a_first_generation_that_can_not_be_started_ends_all() {
    let mut trial = Trial::new();
    trial.generations.handle_start_failure(1, trial.now);
    assert_eq!(trial.finished(), Some(Finish::NeverReady));
}

#[test]
fn a_first_generation_that_is_not_ready_in_time_ends_all() {
    let mut trial = Trial::new();
    trial.report(1, Worker, Report::Ready(FACTS));
    let actions = trial.wait();
    assert_eq!(notes(&actions), [&Note::NotReady(1)]);
    trial.gone(1);
    assert_eq!(trial.finished(), Some(Finish::NeverReady));
}

#[test]
fn a_process_that_is_not_locked_down_never_serves() {
    for facts in [
        Facts { uid: 0, ..FACTS },
        Facts {
            no_new_privs: false,
            ..FACTS
        },
        Facts {
            no_capabilities: false,
            ..FACTS
        },
        Facts {
            landlock_abi: 0,
            ..FACTS
        },
        Facts {
            system_calls: 0,
            ..FACTS
        },
    ] {
        let mut trial = Trial::new();
        let actions = trial.report(1, Worker, Report::Ready(facts));
        assert!(
            matches!(notes(&actions)[..], [Note::Breach(1, Worker, _)]),
            "{facts:?}"
        );
        assert!(actions.ends_with(&kill(1)), "{facts:?}");
    }
}

#[test]
fn best_effort_serves_with_what_the_kernel_has() {
    let mut trial = Trial::with(Sandbox::BestEffort, SECOND);
    let facts = Facts {
        landlock_abi: 0,
        system_calls: 0,
        ..FACTS
    };
    assert_eq!(trial.report(1, Worker, Report::Ready(facts)), []);
    assert_eq!(trial.report(1, Broker, Report::Ready(facts)).len(), 2);
}

#[test]
fn the_death_of_either_replaces_both() {
    for (dead, other) in [(Broker, Worker), (Worker, Broker)] {
        let mut trial = Trial::serving();
        let end = End::Killed(Signal::SIGSYS);
        let actions = trial.end(1, dead, end);
        let delay = Duration::from_millis(100);
        assert_eq!(
            notes(&actions),
            [&Note::Died(1, dead, end), &Note::Restarting(delay)]
        );
        assert!(actions.contains(&Action::Kill(1, other)));
        assert_eq!(trial.end(1, other, End::Ordered), []);
        assert_eq!(trial.wait(), [Action::Start(2)]);
        let actions = trial.ready(2);
        assert!(matches!(
            actions[1],
            Action::Announce {
                generation: 2,
                reloaded: false,
                ..
            }
        ));
    }
}

#[test]
fn the_true_reason_is_told_even_when_the_other_one_is_seen_to_die_first() {
    let mut trial = Trial::serving();
    trial.end(1, Broker, End::Exited(1));
    let end = End::Killed(Signal::SIGSYS);
    assert_eq!(
        notes(&trial.end(1, Worker, end)),
        [&Note::Died(1, Worker, end)]
    );
}

#[test]
fn an_exit_that_was_not_asked_for_counts_as_death() {
    let mut trial = Trial::serving();
    let actions = trial.end(1, Worker, End::Exited(0));
    assert_eq!(notes(&actions)[0], &Note::Died(1, Worker, End::Exited(0)));
}

#[test]
fn too_many_deaths_end_all() {
    let mut trial = Trial::serving();
    for number in 1..=5 {
        trial.end(number, Worker, KILLED);
        trial.end(number, Broker, KILLED);
        assert_eq!(trial.wait(), [Action::Start(number + 1)]);
        trial.ready(number + 1);
    }
    trial.end(6, Worker, KILLED);
    assert_eq!(trial.finished(), None);
    trial.end(6, Broker, KILLED);
    assert_eq!(trial.finished(), Some(Finish::Unstable));
}

#[test]
fn a_restart_that_fails_is_tried_again() {
    let mut trial = Trial::serving();
    trial.gone(1);
    assert_eq!(trial.wait(), [Action::Start(2)]);
    trial.generations.handle_start_failure(2, trial.now);
    assert_eq!(
        trial.actions(),
        [
            Action::Kill(2, Broker),
            Action::Kill(2, Worker),
            Action::Note(Note::Restarting(Duration::from_millis(200))),
        ]
    );
    assert_eq!(trial.wait(), [Action::Start(3)]);
}

#[test]
fn user_signals_go_to_the_worker_that_serves() {
    let mut trial = Trial::new();
    trial.generations.handle_user(1);
    assert_eq!(trial.actions(), [Action::Note(Note::NobodyServes)]);
    let mut trial = Trial::reloaded();
    trial.generations.handle_user(2);
    assert_eq!(trial.actions(), [Action::Tell(2, Worker, Order::User(2))]);
}

#[test]
fn a_process_that_answers_pings_lives() {
    let mut trial = Trial::serving();
    for _ in 0..20 {
        let ping = |role| Action::Tell(1, role, Order::Ping);
        assert_eq!(trial.wait(), [ping(Broker), ping(Worker)]);
        for role in [Broker, Worker] {
            let actions = trial.report(1, role, Report::Counts(Counts::default()));
            assert_eq!(
                actions,
                [Action::Note(Note::Counts(1, role, Counts::default()))]
            );
        }
    }
}

#[test]
fn a_process_that_answers_no_ping_for_half_a_minute_is_replaced() {
    let mut trial = Trial::serving();
    let start = trial.now;
    trial.wait();
    let actions = loop {
        trial
            .generations
            .handle_report(1, Broker, Report::Counts(Counts::default()), trial.now);
        trial.actions();
        let actions = trial.wait();
        if !notes(&actions).is_empty() {
            break actions;
        }
    };
    assert_eq!(notes(&actions)[0], &Note::Stuck(1, Worker, 30 * SECOND));
    assert_eq!(trial.now - start, 35 * SECOND);
    assert!(trial.generations.restart.is_some());
}

#[test]
fn unasked_reports_are_a_breach() {
    let counts = Report::Counts(Counts::default());
    for (role, report) in [
        (Worker, Report::Ready(FACTS)),
        (Broker, Report::Retired),
        (Worker, Report::Retired),
        (Worker, counts),
    ] {
        let mut trial = Trial::serving();
        let actions = trial.report(1, role, report);
        assert!(
            matches!(notes(&actions)[0], Note::Breach(1, ..)),
            "{report:?}"
        );
        assert_eq!(actions[1..3], kill(1), "{report:?}");
        assert!(trial.generations.restart.is_some(), "{report:?}");
    }
}

#[test]
fn a_malformed_report_replaces_the_generation() {
    let mut trial = Trial::serving();
    trial.generations.handle_malformed(1, Worker, trial.now);
    let actions = trial.actions();
    assert!(matches!(
        notes(&actions)[..],
        [Note::Breach(1, Worker, _), Note::Restarting(_)]
    ));
}

#[test]
fn a_process_that_closes_its_channel_and_stays_is_killed() {
    let mut trial = Trial::serving();
    trial.generations.handle_closed(1, Worker, trial.now);
    assert_eq!(trial.actions(), []);
    assert_eq!(trial.wait(), [Action::Kill(1, Worker)]);
    assert_eq!(
        notes(&trial.end(1, Worker, KILLED))[0],
        &Note::Died(1, Worker, KILLED)
    );
}
