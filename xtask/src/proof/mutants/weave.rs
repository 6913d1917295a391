//! Many mutants in one text: each as a switch that is thrown when the program
//! runs ("mutant schemata"), so that one build is enough for all of them.
//!
//! Guarantees: with no switch thrown the text does what the original does, and
//! with one thrown, what the original with that change in its text does; so an
//! operator takes the whole of its chain with it, because another operator may
//! bind otherwise. What cannot be told by a switch is left out and named.

use std::collections::BTreeMap;
use std::ops::Range;

use syn::spanned::Spanned;
use syn::visit::Visit;

use super::list::{Genre, Mutant};
use crate::proof::Failure;

/// Where the switches are, in every crate that has some.
pub const MODULE: &str = "mutant_switch";

/// A file with its switches.
#[derive(Debug, Default)]
pub struct Woven {
    pub text: String,
    /// What of the text belongs to which mutants.
    marks: Vec<Mark>,
    /// There is no place in this file where a switch for them could be.
    pub no_place: Vec<usize>,
}

#[derive(Debug)]
struct Mark {
    bytes: Range<usize>,
    mutants: Vec<usize>,
    part: Part,
}

/// What of a switch it is that does not compile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The change itself.
    Change,
    /// The switch around it, or what has become of the original.
    Switch,
}

impl Woven {
    /// Whose the bytes are: the mutants of the smallest part that has them all.
    pub fn blame(&self, bytes: &Range<usize>) -> Option<(&[usize], Part)> {
        self.marks
            .iter()
            .filter(|mark| mark.bytes.start <= bytes.start && bytes.end <= mark.bytes.end)
            .min_by_key(|mark| mark.bytes.len())
            .map(|mark| (&mark.mutants[..], mark.part))
    }
}

/// Writes the switches of `mutants`, all of them of one file, into its `source`.
///
/// # Errors
/// When the source cannot be parsed, or a mutant is not where it is said to be.
pub fn weave(source: &str, mutants: &[&Mutant]) -> Result<Woven, Failure> {
    let file = syn::parse_file(source)?;
    let mut places = Vec::new();
    for mutant in mutants {
        places.push((mutant.bytes(source)?, *mutant));
    }
    let mut finder = Finder {
        source,
        places,
        sites: BTreeMap::new(),
    };
    finder.visit_file(&file);
    let mut woven = Woven {
        no_place: finder
            .places
            .iter()
            .map(|(_, mutant)| mutant.number)
            .collect(),
        ..Woven::default()
    };
    let sites: Vec<(Place, Vec<Switch>)> = finder.sites.into_iter().collect();
    write(source, 0..source.len(), &sites, &mut woven);
    Ok(woven)
}

/// Where in the original a switch stands; in the order in which they are
/// written: from left to right, the outer before the inner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    start: usize,
    /// Nothing is replaced, something is put before it.
    kind: Kind,
    end: std::cmp::Reverse<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// Before the first statement of a function.
    Return,
    /// Behind the pattern of an arm.
    Arm,
    Expression,
}

#[derive(Debug)]
struct Switch {
    mutant: usize,
    /// What is there instead, or what is returned.
    text: String,
}

struct Finder<'a> {
    source: &'a str,
    /// Those for which no place was found yet.
    places: Vec<(Range<usize>, &'a Mutant)>,
    sites: BTreeMap<Place, Vec<Switch>>,
}

impl<'a> Finder<'a> {
    /// The mutants of this kind whose text begins (for operators: is) there.
    fn take(&mut self, genre: Genre, at: &Range<usize>) -> Vec<(Range<usize>, &'a Mutant)> {
        let (found, rest) = std::mem::take(&mut self.places)
            .into_iter()
            .partition(|(bytes, mutant)| mutant.genre == genre && bytes.start == at.start);
        self.places = rest;
        found
    }

    fn add(&mut self, kind: Kind, bytes: &Range<usize>, mutant: &Mutant, text: String) {
        let place = Place {
            start: bytes.start,
            kind,
            end: std::cmp::Reverse(bytes.end),
        };
        self.sites.entry(place).or_default().push(Switch {
            mutant: mutant.number,
            text,
        });
    }

    /// The text of `whole` with `part` of it replaced.
    fn with(&self, whole: &Range<usize>, part: &Range<usize>, text: &str) -> String {
        let before = &self.source[whole.start..part.start];
        let after = &self.source[part.end..whole.end];
        format!("{before}{text}{after}")
    }

    /// `root`: the whole chain of operators, whose text changes its meaning when
    /// one of them does.
    fn binary(&mut self, node: &syn::ExprBinary, root: &Range<usize>, root_has_let: bool) {
        let own = bytes(node);
        // `if a && let …` has no place for an `if` in the middle of it.
        let whole = if root_has_let { &own } else { root };
        if !has_let_in(node) {
            for (at, mutant) in self.take(Genre::Operator, &bytes(&node.op)) {
                let text = self.with(whole, &at, &mutant.replacement);
                self.add(Kind::Expression, whole, mutant, text);
            }
        }
        for side in [&*node.left, &*node.right] {
            match side {
                syn::Expr::Binary(node) => self.binary(node, root, root_has_let),
                other => self.visit_expr(other),
            }
        }
    }
}

impl<'ast> Visit<'ast> for Finder<'_> {
    fn visit_block(&mut self, node: &'ast syn::Block) {
        if let Some(first) = node.stmts.first() {
            let first = bytes(first);
            for (at, mutant) in self.take(Genre::Returns, &first) {
                // One function returns one type, whichever it is.
                if mutant.returns.contains("impl ") {
                    self.places.push((at, mutant));
                    continue;
                }
                let at = first.start..first.start;
                self.add(Kind::Return, &at, mutant, mutant.replacement.clone());
            }
        }
        syn::visit::visit_block(self, node);
    }

    fn visit_expr_binary(&mut self, node: &'ast syn::ExprBinary) {
        self.binary(node, &bytes(node), has_let_in(node));
    }

    fn visit_expr_unary(&mut self, node: &'ast syn::ExprUnary) {
        let whole = bytes(node);
        for (at, mutant) in self.take(Genre::Unary, &bytes(&node.op)) {
            let text = self.with(&whole, &at, &mutant.replacement);
            self.add(Kind::Expression, &whole, mutant, text);
        }
        syn::visit::visit_expr_unary(self, node);
    }

    fn visit_arm(&mut self, node: &'ast syn::Arm) {
        if let Some((_, guard)) = &node.guard
            && !has_let(guard)
        {
            let whole = bytes(guard);
            for (_, mutant) in self.take(Genre::Guard, &whole) {
                self.add(Kind::Expression, &whole, mutant, mutant.replacement.clone());
            }
        }
        if node.guard.is_none() {
            let behind = bytes(&node.pat).end;
            for (_, mutant) in self.take(Genre::Arm, &bytes(node)) {
                self.add(Kind::Arm, &(behind..behind), mutant, String::new());
            }
        }
        syn::visit::visit_arm(self, node);
    }

    fn visit_expr_struct(&mut self, node: &'ast syn::ExprStruct) {
        let whole = bytes(node);
        for field in node.fields.pairs() {
            let end = field.punct().map(|comma| bytes(comma).end);
            let field = bytes(field.value());
            let end = end.unwrap_or(field.end);
            for (_, mutant) in self.take(Genre::Field, &field) {
                let text = self.with(&whole, &(field.start..end), "");
                self.add(Kind::Expression, &whole, mutant, text);
            }
        }
        syn::visit::visit_expr_struct(self, node);
    }
}

fn bytes(node: &impl Spanned) -> Range<usize> {
    node.span().byte_range()
}

fn has_let_in(node: &syn::ExprBinary) -> bool {
    has_let(&node.left) || has_let(&node.right)
}

/// Whether it is a chain with a `let` in it.
fn has_let(node: &syn::Expr) -> bool {
    match node {
        syn::Expr::Let(_) => true,
        syn::Expr::Binary(node) => has_let_in(node),
        _ => false,
    }
}

/// Writes the part of the original with the switches that stand in it; `sites`
/// are all that do.
fn write(source: &str, part: Range<usize>, sites: &[(Place, Vec<Switch>)], woven: &mut Woven) {
    let mut at = part.start;
    let mut rest = sites;
    while let Some(((place, switches), after)) = rest.split_first() {
        woven.text.push_str(&source[at..place.start]);
        let began = woven.text.len();
        let end = place.end.0;
        let inner = after.iter().take_while(|(other, _)| other.start < end);
        let (inner, after) = after.split_at(inner.count());
        rest = after;
        match place.kind {
            Kind::Return => {
                for switch in switches {
                    let before = format!("if {} {{ return ", thrown(switch.mutant));
                    change(woven, &before, switch, "; } ");
                }
            }
            Kind::Arm => {
                let all: Vec<_> = switches
                    .iter()
                    .map(|switch| format!("!{}", thrown(switch.mutant)))
                    .collect();
                woven.text.push_str(&format!(" if {}", all.join(" && ")));
            }
            Kind::Expression => {
                woven.text.push('(');
                for switch in switches {
                    let before = format!("if {} {{ (", thrown(switch.mutant));
                    change(woven, &before, switch, ") } else ");
                }
                woven.text.push_str("{ (");
                write(source, place.start..end, inner, woven);
                woven.text.push_str(") })");
            }
        }
        woven.marks.push(Mark {
            bytes: began..woven.text.len(),
            mutants: switches.iter().map(|switch| switch.mutant).collect(),
            part: Part::Switch,
        });
        at = end;
    }
    woven.text.push_str(&source[at..part.end]);
}

fn change(woven: &mut Woven, before: &str, switch: &Switch, after: &str) {
    let began = woven.text.len();
    woven.text.push_str(before);
    let start = woven.text.len();
    woven.text.push_str(&switch.text);
    let bytes = start..woven.text.len();
    woven.text.push_str(after);
    woven.marks.push(Mark {
        bytes: began..woven.text.len(),
        mutants: vec![switch.mutant],
        part: Part::Switch,
    });
    woven.marks.push(Mark {
        bytes,
        mutants: vec![switch.mutant],
        part: Part::Change,
    });
}

fn thrown(mutant: usize) -> String {
    format!("crate::{MODULE}::is({mutant})")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proof::mutants::list::read;

    /// The mutant that replaces `part`, which is there once.
    fn mutant(source: &str, genre: &str, part: &str, replacement: &str) -> Mutant {
        assert_eq!(source.matches(part).count(), 1, "{part}");
        let start = source.find(part).unwrap();
        let place = |at: usize| {
            let before = &source[..at];
            let line = before.matches('\n').count() + 1;
            let column = before.chars().rev().take_while(|&c| c != '\n').count() + 1;
            (line, column)
        };
        let ((line, column), end) = (place(start), place(start + part.len()));
        let list = serde_json::json!([{
            "file": "a.rs", "genre": genre, "replacement": replacement,
            "name": format!("a.rs:{line}:{column}: replace {part} with {replacement}"),
            "span": {
                "start": {"line": line, "column": column},
                "end": {"line": end.0, "column": end.1},
            },
        }]);
        read(&list).unwrap().remove(0)
    }

    /// `source` with the parts replaced, numbered from 1 on.
    fn woven(source: &str, changes: &[(&str, &str, &str)]) -> Woven {
        let mut mutants: Vec<_> = changes
            .iter()
            .map(|(genre, part, replacement)| mutant(source, genre, part, replacement))
            .collect();
        for (mutant, number) in mutants.iter_mut().zip(1..) {
            mutant.number = number;
        }
        let woven = weave(source, &mutants.iter().collect::<Vec<_>>()).unwrap();
        syn::parse_file(&woven.text).unwrap_or_else(|error| panic!("{error}: {}", woven.text));
        woven
    }

    #[test]
    fn without_mutants_the_text_is_the_original() {
        let source = "// ä\nfn f() -> bool { 1 + 2 < 3 }\n";
        assert_eq!(woven(source, &[]).text, source);
    }

    #[test]
    fn an_operator_is_replaced_within_the_whole_of_its_chain() {
        let source = "fn f(a: i64, b: i64, c: i64) -> i64 { a - b * c }";
        let woven = woven(source, &[("BinaryOperator", "*", "+")]);
        assert!(woven.text.contains("(a - b + c)"), "{}", woven.text);
    }

    #[test]
    fn a_chain_with_a_let_stays_one_and_its_other_operators_have_switches() {
        let source = "fn f(a: T, b: bool) { if b && let Some(a) = a && a > 3 { g() } }";
        let changed = woven(source, &[("BinaryOperator", ">", ">=")]);
        assert!(changed.no_place.is_empty());
        let chain = "if b && let Some(a) = a && (";
        assert!(changed.text.contains(chain), "{}", changed.text);
        let source = "fn f(a: T, b: bool) { if b && let Some(a) = a { g() } }";
        let changed = woven(source, &[("BinaryOperator", "&&", "||")]);
        assert_eq!(changed.no_place, [1]);
        assert_eq!(changed.text, source);
    }

    #[test]
    fn switches_stand_within_what_another_switch_leaves_as_it_is() {
        let source = "fn f(a: u8) -> bool { !g(a + 1) }";
        let changes = [
            ("FnValue", "!g(a + 1)", "true"),
            ("UnaryOperator", "!", ""),
            ("BinaryOperator", "+", "-"),
        ];
        let text = woven(source, &changes).text;
        let places: Vec<_> = (1..=3).map(|n| text.find(&format!("is({n})"))).collect();
        assert!(
            places.iter().all(Option::is_some) && places.is_sorted(),
            "{text}"
        );
        assert_eq!(text.matches("is(").count(), 3, "{text}");
    }

    #[test]
    fn an_error_is_blamed_on_the_smallest_part_it_is_in() {
        let source = "fn f(a: u8) -> bool { !g(a + 1) }";
        let changes = [("UnaryOperator", "!", ""), ("BinaryOperator", "+", "-")];
        let woven = woven(source, &changes);
        let at = woven.text.find("a - 1").unwrap();
        assert_eq!(woven.blame(&(at..at + 5)), Some((&[2][..], Part::Change)));
        assert_eq!(
            woven.blame(&(at - 8..at + 5)),
            Some((&[2][..], Part::Switch))
        );
        let at = woven.text.find("!g(").unwrap();
        assert_eq!(woven.blame(&(at..at + 2)), Some((&[1][..], Part::Switch)));
        assert_eq!(woven.blame(&(0..2)), None);
    }
}
