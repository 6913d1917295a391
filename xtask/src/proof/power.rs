//! `cargo xtask proof power`: the simulator of power losses
//! (onepen/tests/power), with as many images as one asks for.

use super::{Ask, Failure, Figures, Strength, cargo};

/// Runs it.
pub fn run(ask: &Ask) -> Result<Figures, Failure> {
    let [images, replay] = ask.own_words(["--images", "--replay"])?;
    let images: u64 = match images {
        Some(number) => number
            .parse()
            .map_err(|_| format!("--images {number}: not a number"))?,
        None => match ask.strength {
            Strength::Quick => 20_000,
            Strength::Usual => 200_000,
            Strength::Long => 5_000_000,
        },
    };
    let mut tests = cargo();
    tests
        .args([
            "test",
            "--quiet",
            "--release",
            "-p",
            "onepen",
            "--test",
            "power",
        ])
        .env("ONEPEN_POWER_IMAGES", images.to_string());
    if let Some(seed) = ask.seed {
        tests.env("ONEPEN_POWER_SEED", seed.to_string());
    }
    if let Some(replay) = replay {
        tests.env("ONEPEN_POWER_REPLAY", replay);
    }
    let status = tests.status()?;
    if !status.success() {
        return Err(format!("power: {status}").into());
    }
    Ok(Figures(vec![("images", images.to_string())]))
}
