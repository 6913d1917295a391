//! Transactions that read and write several databases of one connection.
//!
//! Two that take them in opposite orders would each have what the other one needs. With
//! locks there is no way out of that but a refusal; turns can be had before the first
//! lock is. So a transaction that is expected to go on to another database takes the
//! turns of all of them first, in the one order that all processes know (by device and
//! inode), waiting for each with no lock held and with the turns of lower ones alone;
//! and if its patience ends on the way, it gives all of them back and goes on as it
//! would have without. Pure, like the machine.

/// A database as every process knows it: device and inode.
pub type Identity = (u64, u64);

/// What has to be done next, with the database of so many in the list that was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Next {
    /// Take its turn if that needs no waiting, and say whether it was there.
    Try(usize),
    /// Wait until it is worth trying again; say no when there is no patience left.
    Wait(usize),
    /// Give its turn back.
    GiveBack(usize),
    /// All turns were taken.
    All,
    /// None is kept.
    Nothing,
}

/// The way to the turns of several databases.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Several {
    order: Vec<usize>,
    at: usize,
    waits: bool,
    gives_back: bool,
}

impl Several {
    /// For these databases. One that is there twice is one: it has one turn.
    pub fn new(databases: &[Identity]) -> Self {
        let mut order: Vec<usize> = (0..databases.len()).collect();
        order.sort_by_key(|&at| databases[at]);
        order.dedup_by_key(|&mut at| databases[at]);
        Self {
            order,
            at: 0,
            waits: false,
            gives_back: false,
        }
    }

    /// What is to be done now.
    pub fn next(&self) -> Next {
        match (self.gives_back, self.order.get(self.at)) {
            (true, _) if self.at == 0 => Next::Nothing,
            (true, _) => Next::GiveBack(self.order[self.at - 1]),
            (false, None) => Next::All,
            (false, Some(&database)) if self.waits => Next::Wait(database),
            (false, Some(&database)) => Next::Try(database),
        }
    }

    /// What came of it.
    pub fn told(&mut self, yes: bool) {
        match (self.next(), yes) {
            (Next::Try(_), true) => self.at += 1,
            (Next::Try(_), false) => self.waits = true,
            (Next::Wait(_), true) => self.waits = false,
            (Next::Wait(_), false) => self.gives_back = true,
            (Next::GiveBack(_), _) => self.at -= 1,
            (Next::All | Next::Nothing, _) => {}
        }
    }
}
