//! Readers: slots, snapshots, and what is left on a connection.

use crate::planted::{Bug, loom, shuttle};

const SLOTS: &str = "onepen/src/readers/slots.rs";

pub(super) const BUGS: &[Bug] = &[
    Bug {
        what: "a read has no snapshot",
        file: "onepen/src/readers/mod.rs",
        changes: &[(
            "        access.begin(ticket)?;\n        let tx = access.tx();\n        tx.lend();",
            "        let tx = access.tx();\n        tx.lend();",
        )],
        by: shuttle("models::real::every_schedule_on_real_sqlite_is_strictly_serialisable"),
    },
    Bug {
        what: "a read goes on in a state that is gone",
        file: "onepen/src/readers/raw.rs",
        changes: &[(
            "            && self.lease.mark.get() == self.mark_now()\n",
            "",
        )],
        by: shuttle("models::real::every_schedule_on_real_sqlite_is_strictly_serialisable"),
    },
    Bug {
        what: "a reader given back goes to nobody in line",
        file: SLOTS,
        changes: &[(
            "        let served = self.serve(&mut line);\n        if !line.holders",
            "        let served = Served(Vec::new());\n        if !line.holders",
        )],
        by: loom("models::slots::more_readers_than_slots_are_all_served"),
    },
    Bug {
        what: "who joins the line of readers does not look again",
        file: SLOTS,
        changes: &[(
            "        let served = self.serve(&mut line);\n        drop(line);\n        \
             served.wake();\n        self.wait(",
            "        drop(line);\n        self.wait(",
        )],
        by: loom("models::slots::a_slot_has_one_owner_at_a_time_and_whoever_waits_gets_it"),
    },
    Bug {
        what: "a reader is not ordered after the one before it",
        file: SLOTS,
        changes: &[(
            "compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed)",
            "compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed)",
        )],
        by: loom("models::slots::a_slot_has_one_owner_at_a_time_and_whoever_waits_gets_it"),
    },
    Bug {
        what: "who gives up stays in the line of readers",
        file: SLOTS,
        changes: &[("line.waiting.remove(place);", "let _ = place;")],
        by: loom("models::slots::a_waiter_that_is_cancelled_takes_nothing_with_it"),
    },
    Bug {
        what: "readers that are held get slots",
        file: SLOTS,
        changes: &[(
            "if line.waiting.is_empty() || !line.holders.is_empty() {",
            "if line.waiting.is_empty() {",
        )],
        by: loom("models::slots::nobody_reads_while_readers_are_held_and_all_read_on_afterwards"),
    },
    Bug {
        what: "the caretaker does not ask",
        file: SLOTS,
        changes: &[("if slot.swap(0, CARETAKER) {", "if slot.owner() == 0 {")],
        by: loom("models::slots::the_caretaker_meets_nobody_in_a_slot"),
    },
    Bug {
        what: "two who close get the same slot",
        file: SLOTS,
        changes: &[(" && !line.emptied.contains(index)", "")],
        by: loom("models::slots::closing_waits_for_readers_refuses_others_and_gets_each_slot_once"),
    },
    Bug {
        what: "readers are held in a slot that is being closed",
        file: SLOTS,
        changes: &[(
            "if slot.owner() == 0 && !line.closed {",
            "if slot.owner() == 0 {",
        )],
        by: loom("models::slots::who_holds_readers_back_meets_nobody_who_closes_in_a_slot"),
    },
];
