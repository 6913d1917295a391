//! A directed graph with several kinds of edges: its strongly connected parts
//! and short cycles in them. Nothing here recurses, so no history is too deep.

use std::collections::VecDeque;

/// What an edge says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The second overwrote (appended after) what the first wrote.
    Overwrote,
    /// The second read what the first wrote.
    WasReadBy,
    /// The second overwrote what the first had read.
    Missed,
    /// The first had ended before the second began.
    Before,
}

/// A set of kinds.
#[derive(Clone, Copy)]
pub struct Kinds(u8);

impl Kinds {
    /// These.
    pub const fn of(kinds: &[Kind]) -> Self {
        let mut bits = 0;
        let mut at = 0;
        while at < kinds.len() {
            bits |= 1 << kinds[at] as u8;
            at += 1;
        }
        Self(bits)
    }

    fn has(self, kind: Kind) -> bool {
        self.0 & (1 << kind as u8) != 0
    }
}

/// An edge as it lies in a cycle.
#[derive(Clone, Copy, Debug)]
pub struct Edge {
    /// Where it starts.
    pub from: u32,
    /// Where it ends.
    pub to: u32,
    /// What it says.
    pub kind: Kind,
}

/// The graph; its edges are sorted by where they start.
pub struct Graph {
    starts: Vec<usize>,
    edges: Vec<Edge>,
}

impl Graph {
    /// Of so many nodes.
    pub fn new(nodes: usize, mut edges: Vec<Edge>) -> Self {
        edges.sort_by_key(|edge| edge.from);
        let mut starts = vec![0; nodes + 1];
        for edge in &edges {
            starts[edge.from as usize + 1] += 1;
        }
        for at in 1..starts.len() {
            starts[at] += starts[at - 1];
        }
        Self { starts, edges }
    }

    fn from(&self, node: u32) -> &[Edge] {
        &self.edges[self.starts[node as usize]..self.starts[node as usize + 1]]
    }

    /// The strongly connected parts with more than one node, over these edges
    /// (Tarjan, with a stack of its own).
    pub fn parts(&self, kinds: Kinds) -> Vec<Vec<u32>> {
        const NEW: u32 = u32::MAX;
        let nodes = self.starts.len() - 1;
        let mut number = vec![NEW; nodes];
        let mut low = vec![0; nodes];
        let mut on_stack = vec![false; nodes];
        let mut stack: Vec<u32> = Vec::new();
        let mut calls: Vec<(u32, usize)> = Vec::new();
        let mut parts = Vec::new();
        let mut next = 0;
        for root in 0..u32::try_from(nodes).expect("fewer than 2^32 nodes") {
            if number[root as usize] != NEW {
                continue;
            }
            calls.push((root, self.starts[root as usize]));
            while let Some((node, edge)) = calls.pop() {
                let n = node as usize;
                if number[n] == NEW {
                    number[n] = next;
                    low[n] = next;
                    next += 1;
                    stack.push(node);
                    on_stack[n] = true;
                }
                let rest = edge..self.starts[n + 1];
                let deeper = rest.into_iter().find(|&at| {
                    let edge = self.edges[at];
                    let to = edge.to as usize;
                    if !kinds.has(edge.kind) {
                        return false;
                    }
                    if number[to] != NEW && on_stack[to] {
                        low[n] = low[n].min(number[to]);
                    }
                    number[to] == NEW
                });
                if let Some(at) = deeper {
                    calls.push((node, at + 1));
                    let to = self.edges[at].to;
                    calls.push((to, self.starts[to as usize]));
                    continue;
                }
                if low[n] == number[n] {
                    let from = stack.iter().rposition(|&on| on == node).unwrap_or(0);
                    let part = stack.split_off(from);
                    for &member in &part {
                        on_stack[member as usize] = false;
                    }
                    if part.len() > 1 {
                        parts.push(part);
                    }
                }
                if let Some(&(parent, _)) = calls.last() {
                    let parent = parent as usize;
                    low[parent] = low[parent].min(low[n]);
                }
            }
        }
        parts
    }

    /// A shortest way over these edges, within `part`; counts its steps down
    /// from `budget`, and gives up at 0.
    pub fn path(
        &self,
        from: u32,
        to: u32,
        kinds: Kinds,
        part: &Part,
        budget: &mut u64,
    ) -> Option<Vec<Edge>> {
        let mut came: Vec<Option<Edge>> = vec![None; part.size];
        let mut queue = VecDeque::from([from]);
        while let Some(node) = queue.pop_front() {
            for &edge in self.from(node) {
                *budget = budget.checked_sub(1)?;
                let Some(place) = part.place(edge.to) else {
                    continue;
                };
                if !kinds.has(edge.kind) || came[place].is_some() {
                    continue;
                }
                came[place] = Some(edge);
                if edge.to == to {
                    let mut path = vec![edge];
                    let mut at = edge.from;
                    while at != from {
                        let edge = came[part.place(at)?]?;
                        path.push(edge);
                        at = edge.from;
                    }
                    path.reverse();
                    return Some(path);
                }
                queue.push_back(edge.to);
            }
        }
        None
    }

    /// The edges of one kind within `part`.
    pub fn within<'a>(&'a self, part: &'a Part, kind: Kind) -> impl Iterator<Item = Edge> + 'a {
        part.nodes.iter().flat_map(move |&node| {
            self.from(node)
                .iter()
                .copied()
                .filter(move |edge| edge.kind == kind && part.place(edge.to).is_some())
        })
    }
}

/// A part, to be looked up in.
pub struct Part {
    /// Its nodes, in ascending order.
    pub nodes: Vec<u32>,
    size: usize,
}

impl Part {
    /// Of these nodes.
    pub fn new(mut nodes: Vec<u32>) -> Self {
        nodes.sort_unstable();
        Self {
            size: nodes.len(),
            nodes,
        }
    }

    fn place(&self, node: u32) -> Option<usize> {
        self.nodes.binary_search(&node).ok()
    }
}
