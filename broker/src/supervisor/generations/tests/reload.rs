//! SIGHUP: one generation takes over from another.

use super::*;

#[test]
fn a_reload_lets_the_next_one_go_when_the_last_one_has_confirmed() {
    let mut trial = Trial::reloaded();
    assert_eq!(trial.end(1, Worker, End::Exited(0)), []);
    assert_eq!(trial.end(1, Broker, End::Exited(0)), []);
    assert_eq!(trial.generations.phases().len(), 1);
}

#[test]
fn a_reload_that_fails_leaves_the_old_one_serving() {
    let mut trial = Trial::serving();
    trial.generations.handle_reload(trial.now);
    trial.actions();
    let actions = trial.end(2, Worker, End::Exited(1));
    assert_eq!(notes(&actions)[1], &Note::ReloadFailed);
    assert!(
        !actions
            .iter()
            .any(|action| matches!(action, Action::Kill(1, _)))
    );
    trial.end(2, Broker, KILLED);
    assert_eq!(trial.generations.serving(), Some(1));
}

#[test]
fn a_reload_that_was_wanted_meanwhile_follows_one_that_failed() {
    let mut trial = Trial::serving();
    trial.generations.handle_reload(trial.now);
    trial.generations.handle_reload(trial.now);
    trial.actions();
    let actions = trial.end(2, Worker, End::Exited(1));
    assert_eq!(actions.last(), Some(&Action::Start(3)));
    assert_eq!(trial.generations.serving(), Some(1));
}

#[test]
fn reloads_in_a_row_become_one_more() {
    let mut trial = Trial::serving();
    for _ in 0..3 {
        trial.generations.handle_reload(trial.now);
    }
    assert_eq!(trial.actions(), [Action::Start(2)]);
    trial.ready(2);
    let actions = trial.report(1, Broker, Report::Retired);
    assert_eq!(actions.last(), Some(&Action::Start(3)));
    trial.ready(3);
    assert!(
        !trial
            .report(2, Broker, Report::Retired)
            .contains(&Action::Start(4))
    );
}

#[test]
fn a_broker_that_does_not_confirm_is_killed_and_the_next_one_goes() {
    let mut trial = Trial::serving();
    trial.generations.handle_reload(trial.now);
    trial.actions();
    trial.ready(2);
    let actions = trial.wait();
    assert_eq!(notes(&actions), [&Note::NotRetired(1)]);
    assert_eq!(actions[1..3], kill(1));
    assert_eq!(actions[3], Action::Tell(2, Broker, Order::Go));
}

#[test]
fn a_broker_that_dies_instead_of_confirming_lets_the_next_one_go() {
    let mut trial = Trial::serving();
    trial.generations.handle_reload(trial.now);
    trial.actions();
    trial.ready(2);
    let actions = trial.end(1, Broker, KILLED);
    assert!(actions.contains(&Action::Tell(2, Broker, Order::Go)));
}

#[test]
fn a_death_during_a_reload_makes_the_next_one_serve() {
    let mut trial = Trial::serving();
    trial.generations.handle_reload(trial.now);
    trial.actions();
    trial.gone(1);
    let actions = trial.ready(2);
    assert_eq!(actions[0], Action::Tell(2, Broker, Order::Go));
    assert_eq!(trial.generations.restart, None);
}

#[test]
fn the_next_one_dying_before_it_may_go_is_replaced() {
    let mut trial = Trial::serving();
    trial.generations.handle_reload(trial.now);
    trial.actions();
    trial.ready(2);
    let actions = trial.end(2, Worker, KILLED);
    assert!(matches!(
        notes(&actions)[..],
        [Note::Died(2, ..), Note::Restarting(_)]
    ));
    trial.end(2, Broker, KILLED);
    assert_eq!(trial.wait(), [Action::Start(3)]);
    // The first one still reads: the third waits for it.
    assert_eq!(trial.ready(3), []);
    let actions = trial.report(1, Broker, Report::Retired);
    assert!(actions.contains(&Action::Tell(3, Broker, Order::Go)));
}

#[test]
fn an_old_generation_that_fails_does_not_disturb_the_new_one() {
    let mut trial = Trial::reloaded();
    let actions = trial.end(1, Worker, KILLED);
    assert_eq!(notes(&actions), [&Note::Died(1, Worker, KILLED)]);
    assert!(actions.ends_with(&kill(1)));
    assert_eq!(trial.generations.restart, None);
}

#[test]
fn a_broker_without_its_worker_is_killed_after_a_while() {
    let mut trial = Trial::reloaded();
    trial.end(1, Worker, End::Exited(0));
    assert_eq!(trial.wait(), kill(1));
}

#[test]
fn many_reloads_do_not_pile_up() {
    let mut trial = Trial::serving();
    for number in 1..=9 {
        trial.generations.handle_reload(trial.now);
        trial.actions();
        trial.ready(number + 1);
        trial.report(number, Broker, Report::Retired);
    }
    let ending = (1, Phase::Ending(trial.now + FAREWELL));
    assert_eq!(trial.generations.phases()[0], ending);
    assert_eq!(trial.generations.serving(), Some(10));
}
