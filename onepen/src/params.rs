//! Parameters of a statement that may run on another thread than its caller's.
//!
//! What `rusqlite`'s `execute` takes, ours takes: a tuple or an array goes as it
//! is; what is made of references to who knows what (`params!`,
//! `named_params!`) and must not leave its thread is evaluated on it, and its
//! values go. Either way a statement can be run again with the same values.

use rusqlite::types::{ToSqlOutput, Value};
use rusqlite::{ParamsFromIter, Rows, Statement, ToSql, params_from_iter};

use crate::error::{Error, ErrorKind, Result};

/// What may be given as the parameters of a statement that possibly runs on
/// another thread ([`Database::execute`](crate::Database::execute) and its
/// relatives).
///
/// | parameters | how they travel |
/// |---|---|
/// | `()`, `[]` | there are none |
/// | a tuple of up to 16, an array of up to 32 values | as they are: `ToSql + Clone + Send` |
/// | `params_from_iter(…)` | as it is: the collection `Clone + Send` |
/// | `params![…]`, `&[&dyn ToSql]`, `&[&a, &b]` | evaluated where they are, once: a copy of each value |
/// | `named_params! {…}`, `&[(":name", &a)]` | the same, with their names |
///
/// So a tuple is the cheapest; in it a `&str` of a blocking call stays borrowed.
/// A type of your own can stand for the tuple of its fields:
///
/// ```
/// # fn main() -> onepen::Result<()> {
/// # let db = onepen::Database::open_in_memory()?;
/// # db.execute("CREATE TABLE user(name TEXT, age INTEGER)", ())?;
/// use onepen::Parameters;
/// struct User { name: String, age: u8 }
///
/// impl Parameters for User {
///     type Sent = <(String, u8) as Parameters>::Sent;
///
///     fn send(self) -> onepen::Result<Self::Sent> {
///         (self.name, self.age).send()
///     }
/// }
/// db.execute("INSERT INTO user VALUES (?1, ?2)", User { name: "Ada".into(), age: 36 })?;
/// # Ok(()) }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be sent along with a statement",
    label = "a tuple, an array, `params!` or `named_params!` is expected here",
    note = "values in a tuple or an array need `ToSql + Clone + Send`; `params![…]` takes any \
            `ToSql` and evaluates it on this thread"
)]
pub trait Parameters {
    /// Itself, or its values.
    type Sent: Sent;

    /// Makes the parameters fit for another thread.
    ///
    /// # Errors
    /// When the conversion of a value fails
    /// ([`ToSqlConversionFailure`](rusqlite::Error::ToSqlConversionFailure));
    /// [`ErrorKind::NotAllowed`] for what is no value (a pointer, as `rarray`
    /// passes one, or a `ZeroBlob`): give those to a closure.
    fn send(self) -> Result<Self::Sent>;
}

/// Parameters on the thread that runs the statement. Not for use outside of this
/// crate, which is why its module is private.
pub trait Sent: Send {
    #[doc(hidden)]
    fn execute(&self, statement: &mut Statement<'_>) -> rusqlite::Result<usize>;

    #[doc(hidden)]
    fn query<'s>(self, statement: &'s mut Statement<'_>) -> rusqlite::Result<Rows<'s>>;
}

/// What travels as it is.
#[derive(Clone)]
pub struct AsIs<P>(P);

impl<P: rusqlite::Params + Clone + Send> Sent for AsIs<P> {
    #[inline]
    fn execute(&self, statement: &mut Statement<'_>) -> rusqlite::Result<usize> {
        statement.execute(self.0.clone())
    }

    fn query<'s>(self, statement: &'s mut Statement<'_>) -> rusqlite::Result<Rows<'s>> {
        statement.query(self.0)
    }
}

/// Values in the order of the statement's parameters.
#[derive(Clone)]
pub struct Values(Vec<Value>);

impl Sent for Values {
    fn execute(&self, statement: &mut Statement<'_>) -> rusqlite::Result<usize> {
        statement.execute(params_from_iter(&self.0))
    }

    fn query<'s>(self, statement: &'s mut Statement<'_>) -> rusqlite::Result<Rows<'s>> {
        statement.query(params_from_iter(self.0))
    }
}

/// Values with the names of the statement's parameters.
#[derive(Clone)]
pub struct NamedValues(Vec<(String, Value)>);

impl NamedValues {
    fn pairs(&self) -> Vec<(&str, &Value)> {
        let pairs = self.0.iter().map(|(name, value)| (name.as_str(), value));
        pairs.collect()
    }
}

impl Sent for NamedValues {
    fn execute(&self, statement: &mut Statement<'_>) -> rusqlite::Result<usize> {
        statement.execute(self.pairs().as_slice())
    }

    fn query<'s>(self, statement: &'s mut Statement<'_>) -> rusqlite::Result<Rows<'s>> {
        statement.query(self.pairs().as_slice())
    }
}

/// The value of a parameter, evaluated on this thread.
fn value<T: ToSql + ?Sized>(parameter: &T) -> Result<Value> {
    match parameter.to_sql()? {
        ToSqlOutput::Owned(value) => Ok(value),
        ToSqlOutput::Borrowed(value) => {
            Value::try_from(value).map_err(|error| rusqlite::Error::from(error).into())
        }
        // Which others there are depends on the features of rusqlite that this
        // program has: pointers, blobs of zeroes, arguments of a function.
        _ => Err(Error::new(
            ErrorKind::NotAllowed,
            "a parameter is no plain value (a pointer, an array, a blob of zeroes), which cannot \
             go to another thread: run the statement in a closure, with `WriteTx::execute`",
        )),
    }
}

fn values<'a, T: ToSql + ?Sized + 'a>(parameters: &[&'a T]) -> Result<Values> {
    let values = parameters.iter().map(|parameter| value(*parameter));
    Ok(Values(values.collect::<Result<_>>()?))
}

fn named<'a, T: ToSql + ?Sized + 'a>(parameters: &[(&str, &'a T)]) -> Result<NamedValues> {
    let pairs = parameters
        .iter()
        .map(|(name, parameter)| Ok(((*name).to_owned(), value(*parameter)?)));
    Ok(NamedValues(pairs.collect::<Result<_>>()?))
}

impl Parameters for &[&dyn ToSql] {
    type Sent = Values;

    fn send(self) -> Result<Values> {
        values(self)
    }
}

impl Parameters for &[(&str, &dyn ToSql)] {
    type Sent = NamedValues;

    fn send(self) -> Result<NamedValues> {
        named(self)
    }
}

macro_rules! travel_as_they_are {
    ($([$($generics:tt)*] $type:ty),+ $(,)?) => {$(
        impl<$($generics)*> Parameters for $type {
            type Sent = AsIs<Self>;

            #[inline]
            fn send(self) -> Result<AsIs<Self>> {
                Ok(AsIs(self))
            }
        }
    )+};
}

// The one empty array there is, as in rusqlite: more would make `[]` ambiguous.
travel_as_they_are! {
    [] (),
    [] [&(dyn ToSql + Send + Sync); 0],
    [I: IntoIterator<Item: ToSql> + Clone + Send] ParamsFromIter<I>,
}

macro_rules! tuples {
    ($first:ident $($rest:ident)*) => {
        travel_as_they_are! {
            [$first: ToSql + Clone + Send, $($rest: ToSql + Clone + Send),*] ($first, $($rest,)*)
        }
        tuples! { $($rest)* }
    };
    () => {};
}
tuples! { A B C D E F G H I J K L M N O P }

macro_rules! arrays {
    ($($n:literal)+) => {$(
        travel_as_they_are! { [T: ToSql + Clone + Send] [T; $n] }

        impl<T: ToSql + ?Sized> Parameters for &[&T; $n] {
            type Sent = Values;

            fn send(self) -> Result<Values> {
                values(self)
            }
        }

        impl<T: ToSql + ?Sized> Parameters for &[(&str, &T); $n] {
            type Sent = NamedValues;

            fn send(self) -> Result<NamedValues> {
                named(self)
            }
        }
    )+};
}
arrays! { 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 }
