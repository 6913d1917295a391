//! Every state that can be reached, and whether from there everybody can finish.
//!
//! stateright finds the shortest way to a state that should not be; that from every
//! state there is a way on it cannot tell where there are loops, and SQLite's retries
//! are loops. So all states are gone through here, forwards and then backwards.

use std::collections::{BTreeSet, HashMap};

use stateright::{Expectation, Model};

use super::world::{Move, Promotion, State};

/// How many states there are, and which properties do not hold.
pub fn look(model: &Promotion) -> (usize, Vec<&'static str>) {
    let properties = model.properties();
    let (always, sometimes): (Vec<_>, Vec<_>) = properties
        .iter()
        .partition(|property| matches!(property.expectation, Expectation::Always));
    let mut broken: BTreeSet<&'static str> = sometimes.iter().map(|one| one.name).collect();
    let mut states = model.init_states();
    let mut numbers: HashMap<State, u32> = states.iter().cloned().zip(0..).collect();
    let mut came_from: Vec<Vec<u32>> = vec![Vec::new(); states.len()];
    let mut at = 0;
    while at < states.len() {
        let state = states[at].clone();
        for property in &always {
            if !(property.condition)(model, &state) {
                broken.insert(property.name);
            }
        }
        for property in &sometimes {
            if (property.condition)(model, &state) {
                broken.remove(property.name);
            }
        }
        let mut moves = Vec::new();
        model.actions(&state, &mut moves);
        for chosen in moves {
            let Some(next) = model.next_state(&state, chosen) else {
                continue;
            };
            let number = match numbers.get(&next) {
                Some(&number) => number,
                None => {
                    let number = states.len() as u32;
                    states.push(next.clone());
                    came_from.push(Vec::new());
                    numbers.insert(next, number);
                    number
                }
            };
            // Nobody is saved by a kill, or by giving up.
            if !matches!(chosen, Move::Kill(_) | Move::LosePatience(_)) {
                came_from[number as usize].push(at as u32);
            }
        }
        at += 1;
    }
    let mut can_finish: Vec<bool> = states.iter().map(State::all_done).collect();
    let mut found: Vec<u32> = (0..states.len() as u32)
        .filter(|&number| can_finish[number as usize])
        .collect();
    while let Some(number) = found.pop() {
        for &before in &came_from[number as usize] {
            if !std::mem::replace(&mut can_finish[before as usize], true) {
                found.push(before);
            }
        }
    }
    if let Some(stuck) = can_finish.iter().position(|can| !can) {
        println!("from here not everybody can finish: {:#?}", states[stuck]);
        broken.insert(STUCK);
    }
    (states.len(), broken.into_iter().collect())
}

/// From a state that is reached not everybody can finish.
pub const STUCK: &str = "everybody can finish";
