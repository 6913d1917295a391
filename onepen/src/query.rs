//! The ways to ask a connection, for read and write transactions alike.

use rusqlite::{CachedStatement, Connection, Params, Row};

use crate::error::{Error, Result};

/// The first row; an error when there is none.
#[inline]
pub(crate) fn row<T, P, F>(
    connection: &Connection,
    sql: &str,
    params: P,
    map: F,
) -> rusqlite::Result<T>
where
    P: Params,
    F: FnOnce(&Row<'_>) -> rusqlite::Result<T>,
{
    connection.prepare_cached(sql)?.query_row(params, map)
}

/// The first row, if there is one.
pub(crate) fn row_optional<T, P, F>(
    connection: &Connection,
    sql: &str,
    params: P,
    map: F,
) -> rusqlite::Result<Option<T>>
where
    P: Params,
    F: FnOnce(&Row<'_>) -> rusqlite::Result<T>,
{
    first(connection.prepare_cached(sql)?, params, map)
}

/// The first row of a statement, if there is one.
pub(crate) fn first<T, P, F>(
    mut statement: CachedStatement<'_>,
    params: P,
    map: F,
) -> rusqlite::Result<Option<T>>
where
    P: Params,
    F: FnOnce(&Row<'_>) -> rusqlite::Result<T>,
{
    let mut rows = statement.query(params)?;
    rows.next()?.map(map).transpose()
}

/// Every row, one after the other, nothing loaded ahead.
pub(crate) fn each<P, F>(
    connection: &Connection,
    sql: &str,
    params: P,
    mut each: F,
    failed: impl Fn(rusqlite::Error) -> Error,
) -> Result<()>
where
    P: Params,
    F: FnMut(&Row<'_>) -> Result<()>,
{
    let mut statement = connection.prepare_cached(sql).map_err(&failed)?;
    let mut rows = statement.query(params).map_err(&failed)?;
    while let Some(row) = rows.next().map_err(&failed)? {
        each(row)?;
    }
    Ok(())
}

/// All rows.
pub(crate) fn map<T, P, F>(
    connection: &Connection,
    sql: &str,
    params: P,
    map: F,
) -> rusqlite::Result<Vec<T>>
where
    P: Params,
    F: FnMut(&Row<'_>) -> rusqlite::Result<T>,
{
    all(connection.prepare_cached(sql)?, params, map)
}

/// All rows of a statement.
pub(crate) fn all<T, P, F>(
    mut statement: CachedStatement<'_>,
    params: P,
    map: F,
) -> rusqlite::Result<Vec<T>>
where
    P: Params,
    F: FnMut(&Row<'_>) -> rusqlite::Result<T>,
{
    statement.query_map(params, map)?.collect()
}
