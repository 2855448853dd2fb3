//! SIGTERM and SIGINT.

use super::*;

#[test]
fn a_stop_drains_before_it_ends() {
    let mut trial = Trial::serving();
    let actions = trial.stop();
    assert_eq!(notes(&actions), [&Note::Draining(5 * SECOND)]);
    assert_eq!(actions[1], Action::Tell(1, Broker, Order::Retire));
    let drain = [Action::Tell(1, Worker, Order::Drain)];
    assert_eq!(trial.report(1, Broker, Report::Retired), drain);
    trial.end(1, Worker, End::Exited(0));
    assert_eq!(trial.finished(), None);
    trial.end(1, Broker, End::Exited(0));
    assert_eq!(trial.finished(), Some(Finish::Stopped));
}

#[test]
fn a_stop_drains_old_generations_too() {
    let mut trial = Trial::reloaded();
    let actions = trial.stop();
    assert!(actions.contains(&Action::Tell(1, Worker, Order::Drain)));
    assert!(actions.contains(&Action::Tell(2, Broker, Order::Retire)));
}

#[test]
fn the_drain_timeout_ends_and_then_kills() {
    let mut trial = Trial::serving();
    trial.stop();
    trial.report(1, Broker, Report::Retired);
    // A ping is due at the same time.
    let actions = trial.wait();
    assert_eq!(notes(&actions), [&Note::DrainTimeout]);
    assert!(actions.contains(&Action::Tell(1, Worker, Order::Stop)));
    assert_eq!(trial.wait(), kill(1));
    trial.gone(1);
    assert_eq!(trial.finished(), Some(Finish::Stopped));
}

#[test]
fn a_second_stop_ends_at_once() {
    let mut trial = Trial::serving();
    trial.stop();
    let stop = |role| Action::Tell(1, role, Order::Stop);
    assert_eq!(trial.stop(), [stop(Worker), stop(Broker)]);
    assert_eq!(trial.end(1, Broker, End::Exited(0)), []);
    // It saw the broker end first.
    assert_eq!(trial.end(1, Worker, End::Exited(1)), []);
    assert_eq!(trial.finished(), Some(Finish::Stopped));
}

#[test]
fn without_a_drain_timeout_the_first_stop_ends_at_once() {
    let mut trial = Trial::with(Sandbox::Strict, Duration::ZERO);
    assert_eq!(trial.stop().len(), 2);
    trial.gone(1);
    assert_eq!(trial.finished(), Some(Finish::Stopped));
}

#[test]
fn a_stop_before_anything_serves_is_no_failure() {
    let mut trial = Trial::new();
    assert!(trial.stop().ends_with(&kill(1)));
    trial.gone(1);
    assert_eq!(trial.finished(), Some(Finish::Stopped));
}

#[test]
fn a_stop_between_two_generations_ends_at_once() {
    let mut trial = Trial::serving();
    trial.gone(1);
    trial.stop();
    assert_eq!(trial.finished(), Some(Finish::Stopped));
}

#[test]
fn a_death_while_stopping_is_not_repaired() {
    let mut trial = Trial::serving();
    trial.stop();
    let actions = trial.end(1, Broker, KILLED);
    assert!(matches!(notes(&actions)[..], [Note::Died(..)]));
    trial.end(1, Worker, KILLED);
    assert_eq!(trial.finished(), Some(Finish::Stopped));
}

#[test]
fn reports_on_their_way_when_the_end_was_ordered_are_no_breach() {
    let mut trial = Trial::serving();
    trial.stop();
    trial.stop();
    assert_eq!(trial.report(1, Broker, Report::Retired), []);
}
