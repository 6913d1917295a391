//! How long to pause between two tries.

use std::time::Duration;

/// How long to pause before the next try, by how many were made.
///
/// | schedule | pauses | good for |
/// |---|---|---|
/// | [`constant`](Self::constant) | 1, 1, 1, … | the shortest waits, and the fairest: whoever waited longest asks as often as whoever just came |
/// | [`exponential`](Self::exponential) | 1, 2, 4, 8, … | few questions when waits are long; whoever waited longest asks least, so newcomers overtake him |
/// | [`reversed`](Self::reversed) | 8, 4, 2, 1, 1, … | favours whoever waited longest: the opposite of SQLite's own, whose pauses grow from 1 to 100 ms (`sqliteDefaultBusyCallback` in SQLite's source) |
///
/// ```
/// use std::time::Duration;
/// use onepen::blocks::Schedule;
/// let ms = Duration::from_millis;
/// let growing = Schedule::exponential(ms(1), ms(5));
/// let pauses: Vec<_> = (0..4).map(|tries| growing.pause(tries)).collect();
/// assert_eq!(pauses, [ms(1), ms(2), ms(4), ms(5)]);
/// let shrinking = Schedule::reversed(ms(8), ms(2));
/// let pauses: Vec<_> = (0..4).map(|tries| shrinking.pause(tries)).collect();
/// assert_eq!(pauses, [ms(8), ms(4), ms(2), ms(2)]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule(Kind);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Constant(Duration),
    Exponential { first: Duration, most: Duration },
    Reversed { first: Duration, least: Duration },
}

impl Schedule {
    /// The same pause every time.
    pub const fn constant(pause: Duration) -> Self {
        Self(Kind::Constant(pause))
    }

    /// Pauses that double, from `first` up to `most`.
    pub const fn exponential(first: Duration, most: Duration) -> Self {
        Self(Kind::Exponential { first, most })
    }

    /// Pauses that halve, from `first` down to `least`.
    pub const fn reversed(first: Duration, least: Duration) -> Self {
        Self(Kind::Reversed { first, least })
    }

    /// The pause after `tries` tries more than the first.
    pub fn pause(&self, tries: u32) -> Duration {
        match self.0 {
            Kind::Constant(pause) => pause,
            Kind::Exponential { first, most } => 2_u32
                .checked_pow(tries)
                .and_then(|times| first.checked_mul(times))
                .map_or(most, |pause| pause.min(most)),
            Kind::Reversed { first, least } => 2_u32
                .checked_pow(tries)
                .map_or(least, |parts| (first / parts).max(least)),
        }
    }
}

impl Default for Schedule {
    /// A millisecond every time: what onepen's own connections do.
    fn default() -> Self {
        Self::constant(crate::engine::LOOK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn no_number_of_tries_leaves_the_bounds() {
        for tries in [0, 1, 31, 32, 63, 64, u32::MAX] {
            let growing = Schedule::exponential(ms(3), ms(100)).pause(tries);
            assert!((ms(3)..=ms(100)).contains(&growing), "{tries}: {growing:?}");
            let shrinking = Schedule::reversed(ms(100), ms(3)).pause(tries);
            assert!(
                (ms(3)..=ms(100)).contains(&shrinking),
                "{tries}: {shrinking:?}"
            );
            assert_eq!(Schedule::constant(ms(7)).pause(tries), ms(7));
        }
        assert_eq!(Schedule::exponential(Duration::MAX, ms(9)).pause(5), ms(9));
    }

    #[test]
    fn a_reversed_schedule_is_the_exponential_one_backwards() {
        let growing = Schedule::exponential(ms(1), ms(64));
        let shrinking = Schedule::reversed(ms(64), ms(1));
        for tries in 0..=6 {
            assert_eq!(growing.pause(tries), shrinking.pause(6 - tries));
        }
    }
}
