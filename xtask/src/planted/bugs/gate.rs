//! The gate between processes.

use crate::planted::{Bug, lock_test, lock_unit};

const QUEUE: &str = "onepen-lock/src/gate/queue.rs";
const MEMBER: &str = "onepen-lock/src/gate/member.rs";
const ALIVE: &str = "onepen-lock/src/gate/alive.rs";
const FILE: &str = "onepen-lock/src/gate/file.rs";

pub(super) const BUGS: &[Bug] = &[
    Bug {
        what: "a turn may be taken before those who wait",
        file: QUEUE,
        changes: &[
            (
                "                if self.others_wait() {\n                    // Whoever let it go",
                "                if false {\n                    // Whoever let it go",
            ),
            (
                "        if self.others_wait() {\n            return if self.hand_over(turn, None) {",
                "        if false {\n            return if self.hand_over(turn, None) {",
            ),
            (
                "        if self.others_wait() {\n            self.hand_over(free, None);",
                "        if false {\n            self.hand_over(free, None);",
            ),
        ],
        by: lock_test("gate", "order::nobody_gets_the_turn_before_those_who_wait"),
    },
    Bug {
        what: "who was passed over before it had SQLite's lock writes all the same",
        file: "onepen-lock/src/gate/seat.rs",
        changes: &[(
            "line.turn = line.turn.and_then(|turn| place.confirm(turn));",
            "line.turn = line.turn.map(|turn| place.confirm(turn).unwrap_or(turn));",
        )],
        by: lock_test(
            "gate",
            "stop::who_was_stopped_between_the_turn_and_the_lock_gets_to_know_that_it_was_passed_over",
        ),
    },
    Bug {
        what: "who was written over never knows its turn again",
        file: QUEUE,
        changes: &[(
            "        if own.load(SeqCst) as u16 != self.generation {",
            "        if false {",
        )],
        by: lock_test(
            "gate",
            "hostile::whatever_is_written_over_the_side_file_once_the_turns_go_on",
        ),
    },
    Bug {
        what: "a side file that is shortened ends its users",
        file: "onepen-lock/src/gate/shortened.rs",
        changes: &[(
            "        && put_memory_in_its_place(entry)",
            "        && false && put_memory_in_its_place(entry)",
        )],
        by: lock_test(
            "gate",
            "hostile::a_side_file_that_is_shortened_ends_none_of_its_users",
        ),
    },
    Bug {
        what: "the last in line is served first",
        file: QUEUE,
        changes: &[(
            "            .max_by_key(|&(_, age)| age)",
            "            .min_by_key(|&(_, age)| age)",
        )],
        by: lock_test(
            "gate",
            "order::turns_pass_in_the_order_in_which_they_were_asked_for",
        ),
    },
    Bug {
        what: "a turn that is kept and not used stays where it is",
        file: QUEUE,
        changes: &[(
            "        if owner.phase == Phase::Open {\n            return slice_left;",
            "        if owner.phase == Phase::Open {\n            return Some(slice_left.unwrap_or(LOOK));",
        )],
        by: lock_test(
            "gate",
            "order::a_turn_that_is_kept_and_not_used_ends_with_its_slice",
        ),
    },
    Bug {
        what: "nobody looks whether the owner lives",
        file: QUEUE,
        changes: &[
            (
                "if is_gone || !self.world.lives(owner.slot) {",
                "if false && is_gone {",
            ),
            (
                "        if self.world.lock_is_held() {\n            watched",
                "        if true {\n            watched",
            ),
        ],
        by: lock_test(
            "gate",
            "crash::a_killed_owner_of_the_turn_keeps_nobody_waiting",
        ),
    },
    Bug {
        what: "a dead waiter is given the turn for ever",
        file: QUEUE,
        changes: &[
            (
                "            if first != self.slot && !self.world.lives(first) {",
                "            if false {",
            ),
            (
                "if is_gone || !self.world.lives(owner.slot) {",
                "if false && is_gone {",
            ),
            (
                "return GRACE.checked_sub(seen_for).filter(|&left| left > 0);",
                "return Some(GRACE);",
            ),
        ],
        by: lock_test("gate", "crash::a_killed_waiter_is_passed_by"),
    },
    Bug {
        what: "a lock that a forked child has kept is taken for a living owner's",
        file: QUEUE,
        changes: &[(
            "        if self.world.lock_is_held() {\n            watched",
            "        if true {\n            watched",
        )],
        by: lock_test(
            "gate",
            "crash::a_child_left_behind_by_a_dead_parent_stalls_nobody",
        ),
    },
    Bug {
        what: "the turn of a stopped owner is taken though it has SQLite's lock",
        file: QUEUE,
        changes: &[(
            "        if self.world.lock_is_held() {\n            watched",
            "        if false {\n            watched",
        )],
        by: lock_test(
            "gate",
            "stop::a_stopped_owner_that_holds_sqlites_lock_is_waited_for",
        ),
    },
    Bug {
        what: "a slot is not another one for its next owner",
        file: MEMBER,
        changes: &[(
            "own.generation.fetch_add(1, SeqCst).wrapping_add(1)",
            "own.generation.fetch_add(0, SeqCst)",
        )],
        by: lock_test(
            "gate",
            "crash::what_a_dead_process_left_is_not_taken_for_that_of_the_next_in_its_place",
        ),
    },
    Bug {
        what: "who gives up stays in the line of processes",
        file: QUEUE,
        changes: &[(
            "    pub(super) fn give_up(&self) {\n        self.leave();",
            "    pub(super) fn give_up(&self) {",
        )],
        by: lock_test(
            "gate",
            "order::a_wait_that_nobody_wants_any_more_leaves_the_line",
        ),
    },
    Bug {
        what: "whoever is alive is not asked of the kernel",
        file: ALIVE,
        changes: &[(
            "    call(file, libc::F_OFD_GETLK, &mut lock).is_err() || lock.l_type != libc::F_UNLCK as i16",
            "    call(file, libc::F_OFD_GETLK, &mut lock).is_err() || lock.l_type == libc::F_UNLCK as i16",
        )],
        by: lock_unit(
            "gate::alive::tests::a_byte_is_free_as_soon_as_its_owner_is_gone_and_not_before",
        ),
    },
    Bug {
        what: "a link in the place of the side file is followed",
        file: FILE,
        changes: &[(
            "let flags = access | OFlags::NOFOLLOW | OFlags::NONBLOCK",
            "let flags = access | OFlags::NONBLOCK",
        )],
        by: lock_test(
            "gate",
            "file::a_link_in_the_place_of_the_side_file_is_not_followed",
        ),
    },
    Bug {
        what: "the side file has the mode that the umask leaves",
        file: FILE,
        changes: &[
            (
                "    rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))?;\n    Ok(file)",
                "    Ok(file)",
            ),
            (
                "    if mode != wanted && (found.uid() == me.as_raw() || me.is_root()) {",
                "    if false && wanted == 1 && me.is_root() {",
            ),
        ],
        by: lock_test(
            "gate",
            "file::the_side_file_has_the_mode_of_the_database_whatever_the_umask",
        ),
    },
];
