//! `cargo xtask proof power`: the simulator of power losses
//! (onepen/tests/power), with as many images as one asks for.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

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
        .args(["test", "--quiet", "--release", "-p", "onepen"])
        .args(["--test", "power", "--"])
        .env("ONEPEN_POWER_IMAGES", images.to_string());
    if let Some(seed) = ask.seed {
        tests.env("ONEPEN_POWER_SEED", seed.to_string());
    }
    match replay {
        Some(kept) => {
            let kept = std::path::absolute(kept)?;
            tests.env("ONEPEN_POWER_REPLAY", kept);
            tests.args(["a_kept_image_is_judged_again", "--nocapture"]);
            // It fails, and says how the image is judged.
            let status = tests.status()?;
            return Err(format!("the image was judged again: {status}").into());
        }
        None => drop(tests.arg("--nocapture")),
    }
    println!("{images} images, seed {}", ask.seed.unwrap_or(1));
    let mut child = tests.stdout(Stdio::piped()).spawn()?;
    let output = child.stdout.take().ok_or("no output")?;
    let (mut looked_at, mut distinct, mut campaigns) = (0, 0, 0);
    for line in BufReader::new(output).lines() {
        let line = line?;
        // The harness puts a dot before it for each test that has passed.
        let Some((_, said)) = line.split_once("power: ") else {
            continue;
        };
        println!("  {said}");
        if let Some((all, different)) = counts(said) {
            looked_at += all;
            distinct += different;
            campaigns += 1;
        }
    }
    let status = child.wait()?;
    if !status.success() {
        return Err(format!(
            "power: {status}; seed {}; see above for the images that were kept, and judge one \
             again with --replay",
            ask.seed.unwrap_or(1)
        )
        .into());
    }
    if campaigns == 0 {
        return Err("nothing was looked at".into());
    }
    Ok(Figures(vec![
        ("images", looked_at.to_string()),
        ("of them distinct", distinct.to_string()),
        ("kinds of recordings", campaigns.to_string()),
    ]))
}

/// Of `NAME: 600 images (541 distinct) of …`.
fn counts(said: &str) -> Option<(u64, u64)> {
    let (_, said) = said.split_once(": ")?;
    let (images, rest) = said.split_once(" images (")?;
    let (distinct, _) = rest.split_once(" distinct)")?;
    Some((images.parse().ok()?, distinct.parse().ok()?))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_counts_of_a_line_are_read() {
        let line = "twice: 1000 images (751 distinct) of 2811 moments in 20 recordings, 5.4 s: ok";
        assert_eq!(super::counts(line), Some((1000, 751)));
        assert_eq!(super::counts("twice: 95 %, nothing found"), None);
    }
}
