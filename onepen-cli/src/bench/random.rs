//! Random numbers: the same seed gives the same numbers on every machine.
//!
//! Guarantee: everything a transaction draws comes from a seed that is part of
//! it, so that running it again does the same again, as `onepen` and every
//! retrying way demand.

/// xoshiro256++ (Blackman and Vigna), seeded by splitmix64.
#[derive(Clone, Debug)]
pub struct Random([u64; 4]);

impl Random {
    /// The sequence that belongs to this seed.
    pub fn new(seed: u64) -> Self {
        let mut state = seed;
        Self(std::array::from_fn(|_| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            mix(state)
        }))
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        let s = &mut self.0;
        let answer = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let shifted = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= shifted;
        s[3] = s[3].rotate_left(45);
        answer
    }

    /// Uniform in `0.0..1.0`.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Uniform in `low..=high`; `high` must not be below `low`.
    pub fn between(&mut self, low: i64, high: i64) -> i64 {
        debug_assert!(low <= high);
        let span = high.wrapping_sub(low) as u64;
        match span.checked_add(1) {
            None => self.bits() as i64,
            // Lemire's multiplication; its bias is below 2^-32 for any span in use.
            Some(count) => {
                let offset = (u128::from(self.bits()) * u128::from(count)) >> 64;
                low.wrapping_add(offset as i64)
            }
        }
    }

    /// Normal around the middle of `low..=high`, cut `parameter` standard
    /// deviations away from it, as pgbench's `random_gaussian`.
    pub fn gaussian(&mut self, low: i64, high: i64, parameter: f64) -> i64 {
        let deviate = loop {
            // Box and Muller, as pgbench.
            let u1 = 1.0 - self.unit();
            let u2 = 1.0 - self.unit();
            let deviate = (-2.0 * u1.ln()).sqrt() * (2.0 * std::f64::consts::PI * u2).sin();
            if (-parameter..parameter).contains(&deviate) {
                break deviate;
            }
        };
        within(low, high, (deviate + parameter) / (2.0 * parameter))
    }

    /// Exponential decay from `low`, as pgbench's `random_exponential`.
    pub fn exponential(&mut self, low: i64, high: i64, parameter: f64) -> i64 {
        let cut = (-parameter).exp();
        let uniform = 1.0 - self.unit();
        within(low, high, -(cut + (1.0 - cut) * uniform).ln() / parameter)
    }

    /// Zipf with an exponent above 1, as pgbench's `random_zipfian` (rejection
    /// after Devroye, Non-Uniform Random Variate Generation, chapter X.6).
    pub fn zipfian(&mut self, low: i64, high: i64, parameter: f64) -> i64 {
        let n = (high - low + 1) as f64;
        if n <= 1.0 {
            return low;
        }
        let b = 2_f64.powf(parameter - 1.0);
        let rank = loop {
            let u = self.unit();
            let v = self.unit();
            let x = u.powf(-1.0 / (parameter - 1.0)).floor();
            let t = (1.0 + 1.0 / x).powf(parameter - 1.0);
            if v * x * (t - 1.0) / (b - 1.0) <= t / b && x <= n {
                break x;
            }
        };
        low + rank as i64 - 1
    }
}

fn within(low: i64, high: i64, fraction: f64) -> i64 {
    let n = (high - low + 1) as f64;
    (low + (n * fraction) as i64).min(high)
}

/// The finaliser of splitmix64: one well-mixed number from another.
pub fn mix(n: u64) -> u64 {
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

/// YCSB's scrambled zipfian keys: a few are asked for most of the time, and
/// they lie scattered over the key space (Gray et al., Quickly Generating
/// Billion-Record Synthetic Databases, with YCSB's exponent 0.99).
#[derive(Clone, Debug)]
pub struct Keys {
    count: u64,
    zeta: f64,
    eta: f64,
}

const THETA: f64 = 0.99;
const ALPHA: f64 = 1.0 / (1.0 - THETA);

impl Keys {
    /// Keys `1..=count`; `count` must be at least 2.
    pub fn new(count: u64) -> Self {
        let zeta: f64 = (1..=count).map(|i| (i as f64).powf(-THETA)).sum();
        let zeta_two = 1.0 + 0.5_f64.powf(THETA);
        Self {
            count,
            zeta,
            eta: (1.0 - (2.0 / count as f64).powf(1.0 - THETA)) / (1.0 - zeta_two / zeta),
        }
    }

    /// The next key.
    pub fn draw(&self, random: &mut Random) -> i64 {
        let u = random.unit();
        let uz = u * self.zeta;
        let rank = if uz < 1.0 {
            0
        } else if uz < 1.0 + 0.5_f64.powf(THETA) {
            1
        } else {
            (self.count as f64 * (self.eta * u - self.eta + 1.0).powf(ALPHA)) as u64
        };
        1 + (mix(rank) % self.count) as i64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_numbers() {
        let draw = |seed| {
            let mut random = Random::new(seed);
            std::array::from_fn::<_, 8, _>(|_| random.bits())
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn every_distribution_stays_within_its_bounds_and_reaches_them() {
        let mut random = Random::new(1);
        let mut seen = [[0_u32; 5]; 4];
        for _ in 0..20_000 {
            for (at, n) in [
                random.between(-2, 2),
                random.gaussian(-2, 2, 2.0),
                random.exponential(-2, 2, 2.0),
                random.zipfian(-2, 2, 1.5),
            ]
            .into_iter()
            .enumerate()
            {
                seen[at][usize::try_from(n + 2).expect("at least the lower bound")] += 1;
            }
        }
        assert!(seen.iter().flatten().all(|&n| n > 0), "{seen:?}");
        let [_, gaussian, exponential, zipfian] = seen;
        assert!(gaussian[2] > gaussian[0] && gaussian[2] > gaussian[4]);
        assert!(exponential.is_sorted_by(|a, b| a > b), "{exponential:?}");
        assert!(zipfian.is_sorted_by(|a, b| a > b), "{zipfian:?}");
    }

    #[test]
    fn zipfian_keys_are_all_valid_and_a_few_are_hot() {
        let keys = Keys::new(1_000);
        let mut random = Random::new(3);
        let mut hits = vec![0_u32; 1_001];
        for _ in 0..50_000 {
            hits[usize::try_from(keys.draw(&mut random)).unwrap()] += 1;
        }
        assert_eq!(hits[0], 0);
        hits.sort_unstable_by(|a, b| b.cmp(a));
        assert!(
            hits[..10].iter().sum::<u32>() > 50_000 / 4,
            "{:?}",
            &hits[..10]
        );
    }
}
