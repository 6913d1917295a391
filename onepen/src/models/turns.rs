//! The pen and those who write by a permit: one of them at a time has the turn of
//! the file, and whoever gives up, in this line or in the one between processes,
//! leaves none behind.

use super::explore::explore;
use super::{Rig, limits, write};
use crate::blocks::permit::Turns;
use crate::cancel::CancelToken;
use crate::engine::Until;
use crate::error::ErrorKind;
use crate::pen::job::Ticket;
use crate::sync::{Arc, thread};

/// A pen that stands in line with those who have permits.
fn rig() -> (Rig, Arc<Turns>) {
    let rig = Rig::new(limits());
    let turns = Turns::new();
    rig.pen.stand_in_line(Arc::clone(&turns));
    (rig, turns)
}

fn take(turns: &Turns) {
    let patience = Until {
        deadline: None,
        cancel: None,
    };
    turns.take(&patience).expect("nobody gives up here");
}

#[test]
fn nobody_writes_through_the_pen_while_somebody_has_a_permit() {
    explore(|| {
        let (rig, turns) = rig();
        let writer = rig.start_writer();
        let world = Arc::clone(&rig.world);
        let permitted = thread::spawn(move || {
            take(&turns);
            let before = world.commits();
            thread::yield_now();
            assert_eq!(world.commits(), before, "the pen wrote in a permit's turn");
            turns.pass_on();
        });
        rig.write(1).unwrap();
        permitted.join().unwrap();
        rig.finish(writer);
    });
}

#[test]
fn a_write_that_gives_up_waiting_for_a_permit_takes_no_turn_along() {
    explore(|| {
        let (rig, turns) = rig();
        let writer = rig.start_writer();
        take(&turns);
        let token = CancelToken::new();
        let ticket = Ticket {
            cancel: Some(token.clone()),
            ..Ticket::default()
        };
        let canceller = thread::spawn(move || token.cancel());
        let answer = write(&rig.pen, &rig.world, &ticket, 1);
        assert_eq!(answer.unwrap_err().kind(), ErrorKind::Cancelled);
        canceller.join().unwrap();
        turns.pass_on();
        rig.write(2).unwrap();
        rig.finish(writer);
        take(&turns);
    });
}

#[test]
fn a_write_that_gives_up_at_the_gate_passes_on_the_turn_it_has_here() {
    explore(|| {
        let (rig, turns) = rig();
        let writer = rig.start_writer();
        rig.world.stranger_has_turn(true);
        let token = CancelToken::new();
        let ticket = Ticket {
            cancel: Some(token.clone()),
            ..Ticket::default()
        };
        let permitted = {
            let turns = Arc::clone(&turns);
            thread::spawn(move || {
                take(&turns);
                turns.pass_on();
            })
        };
        let canceller = thread::spawn(move || token.cancel());
        let answer = write(&rig.pen, &rig.world, &ticket, 1);
        assert_eq!(answer.unwrap_err().kind(), ErrorKind::Cancelled);
        canceller.join().unwrap();
        permitted.join().unwrap();
        rig.world.stranger_has_turn(false);
        rig.finish(writer);
        take(&turns);
    });
}
