//! The ways to ask a connection, for read and write transactions alike.

use rusqlite::{CachedStatement, Connection, Params, Row};

use crate::error::{Error, Result};

type Answer<T> = rusqlite::Result<T>;

/// The first row; an error when there is none.
#[inline]
pub(crate) fn row<T>(
    connection: &Connection,
    sql: &str,
    params: impl Params,
    map: impl FnOnce(&Row<'_>) -> Answer<T>,
) -> Answer<T> {
    connection.prepare_cached(sql)?.query_row(params, map)
}

/// The first row, if there is one.
pub(crate) fn row_optional<T>(
    connection: &Connection,
    sql: &str,
    params: impl Params,
    map: impl FnOnce(&Row<'_>) -> Answer<T>,
) -> Answer<Option<T>> {
    first(connection.prepare_cached(sql)?, params, map)
}

/// The first row of a statement, if there is one.
pub(crate) fn first<T>(
    mut statement: CachedStatement<'_>,
    params: impl Params,
    map: impl FnOnce(&Row<'_>) -> Answer<T>,
) -> Answer<Option<T>> {
    let mut rows = statement.query(params)?;
    rows.next()?.map(map).transpose()
}

/// All rows.
pub(crate) fn map<T>(
    connection: &Connection,
    sql: &str,
    params: impl Params,
    map: impl FnMut(&Row<'_>) -> Answer<T>,
) -> Answer<Vec<T>> {
    all(connection.prepare_cached(sql)?, params, map)
}

/// All rows of a statement.
pub(crate) fn all<T>(
    mut statement: CachedStatement<'_>,
    params: impl Params,
    map: impl FnMut(&Row<'_>) -> Answer<T>,
) -> Answer<Vec<T>> {
    statement.query_map(params, map)?.collect()
}

/// Every row, one after the other, nothing loaded ahead.
pub(crate) fn each(
    connection: &Connection,
    sql: &str,
    params: impl Params,
    mut each: impl FnMut(&Row<'_>) -> Result<()>,
    failed: impl Fn(rusqlite::Error) -> Error,
) -> Result<()> {
    let mut statement = connection.prepare_cached(sql).map_err(&failed)?;
    let mut rows = statement.query(params).map_err(&failed)?;
    while let Some(row) = rows.next().map_err(&failed)? {
        each(row)?;
    }
    Ok(())
}
