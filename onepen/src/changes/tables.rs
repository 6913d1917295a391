//! A set of tables, or any table.

use std::fmt;
use std::sync::Arc;

/// Which tables a commit may have changed, or a query reads.
///
/// Names are those of the schema, sorted; a table of an attached database is
/// called `schema.table`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Tables(Option<Arc<[Arc<str>]>>);

impl Tables {
    /// Any table: which ones is not known.
    pub(crate) const ANY: Self = Self(None);

    pub(crate) fn of(names: impl IntoIterator<Item = Arc<str>>) -> Self {
        let mut names: Vec<Arc<str>> = names.into_iter().collect();
        names.sort_unstable();
        names.dedup();
        Self(Some(names.into()))
    }

    /// Whether it may be any table: the schema was changed, a closure took
    /// [the connection itself](crate::WriteTx::connection) or had it
    /// [exclusively](crate::Database::exclusively), or another process wrote.
    pub fn is_any(&self) -> bool {
        self.0.is_none()
    }

    /// Whether `table` may be among them. Names are compared as SQLite does,
    /// without regard to the case of ASCII letters.
    pub fn contains(&self, table: &str) -> bool {
        self.0
            .as_ref()
            .is_none_or(|names| names.iter().any(|name| name.eq_ignore_ascii_case(table)))
    }

    /// Whether the two may have a table in common.
    pub fn overlaps(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Some(names), Some(_)) => names.iter().any(|name| other.contains(name)),
            _ => true,
        }
    }

    /// The names, if they are known.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0
            .iter()
            .flat_map(|names| names.iter())
            .map(|name| &**name)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.as_ref().is_some_and(|names| names.is_empty())
    }

    pub(crate) fn and(&self, other: &Self) -> Self {
        match (&self.0, &other.0) {
            (Some(one), Some(two)) if one == two => self.clone(),
            (Some(one), Some(two)) => Self::of(one.iter().chain(&**two).cloned()),
            _ => Self::ANY,
        }
    }
}

impl fmt::Debug for Tables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(names) => f.debug_set().entries(names.iter()).finish(),
            None => f.write_str("any"),
        }
    }
}

impl fmt::Display for Tables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(names) = &self.0 else {
            return f.write_str("any table");
        };
        for (place, name) in names.iter().enumerate() {
            let comma = if place == 0 { "" } else { ", " };
            write!(f, "{comma}{name}")?;
        }
        Ok(())
    }
}
