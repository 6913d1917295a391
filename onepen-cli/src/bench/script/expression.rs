//! The expressions of `\set`: pgbench's arithmetic and random functions.
//!
//! Guarantees: whole numbers stay whole and never wrap; an expression is
//! checked when the script is read, so that at run time only what depends on
//! the numbers can still fail (a division by zero, an empty range).

use crate::bench::random::Random;
use crate::bench::sql::Value;

/// An expression, its variables resolved to their places.
#[derive(Clone, Debug, PartialEq)]
pub enum Expression {
    /// A literal.
    Constant(Value),
    /// A variable, by its place.
    Variable(usize),
    /// Unary minus.
    Negative(Box<Expression>),
    /// An operator between two.
    Binary(Operator, Box<Expression>, Box<Expression>),
    /// A function.
    Call(&'static Function, Vec<Expression>),
}

/// An arithmetic operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// `+`
    Add,
    /// `-`
    Subtract,
    /// `*`
    Multiply,
    /// `/`, cutting towards zero between whole numbers.
    Divide,
    /// `%`, between whole numbers.
    Remainder,
}

/// A function of pgbench.
#[derive(Debug)]
pub struct Function {
    name: &'static str,
    arguments: std::ops::RangeInclusive<usize>,
    run: fn(&[Value], &mut Random) -> Result<Value, String>,
}

impl PartialEq for Function {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

static FUNCTIONS: &[Function] = &[
    Function {
        name: "random",
        arguments: 2..=2,
        run: |a, random| {
            let (low, high) = range(a)?;
            Ok(Value::Integer(random.between(low, high)))
        },
    },
    Function {
        name: "random_gaussian",
        arguments: 3..=3,
        run: |a, random| {
            let (low, high) = range(a)?;
            let parameter = parameter(&a[2], 2.0, f64::MAX)?;
            Ok(Value::Integer(random.gaussian(low, high, parameter)))
        },
    },
    Function {
        name: "random_exponential",
        arguments: 3..=3,
        run: |a, random| {
            let (low, high) = range(a)?;
            let parameter = parameter(&a[2], f64::MIN_POSITIVE, f64::MAX)?;
            Ok(Value::Integer(random.exponential(low, high, parameter)))
        },
    },
    Function {
        name: "random_zipfian",
        arguments: 3..=3,
        run: |a, random| {
            let (low, high) = range(a)?;
            let parameter = parameter(&a[2], 1.001, 1_000.0)?;
            Ok(Value::Integer(random.zipfian(low, high, parameter)))
        },
    },
    Function {
        name: "abs",
        arguments: 1..=1,
        run: |a, _| match &a[0] {
            Value::Integer(n) => n.checked_abs().map(Value::Integer).ok_or_else(too_big),
            value => Ok(Value::Real(real(value)?.abs())),
        },
    },
    Function {
        name: "least",
        arguments: 1..=usize::MAX,
        run: |a, _| extreme(a, |candidate, best| candidate < best),
    },
    Function {
        name: "greatest",
        arguments: 1..=usize::MAX,
        run: |a, _| extreme(a, |candidate, best| candidate > best),
    },
    Function {
        name: "mod",
        arguments: 2..=2,
        run: |a, _| calculate(Operator::Remainder, &a[0], &a[1]),
    },
    Function {
        name: "int",
        arguments: 1..=1,
        run: |a, _| match &a[0] {
            Value::Integer(n) => Ok(Value::Integer(*n)),
            value => {
                let x = real(value)?.trunc();
                if x >= i64::MIN as f64 && x < i64::MAX as f64 {
                    Ok(Value::Integer(x as i64))
                } else {
                    Err(too_big())
                }
            }
        },
    },
    Function {
        name: "double",
        arguments: 1..=1,
        run: |a, _| real(&a[0]).map(Value::Real),
    },
    Function {
        name: "sqrt",
        arguments: 1..=1,
        run: |a, _| Ok(Value::Real(real(&a[0])?.sqrt())),
    },
    Function {
        name: "ln",
        arguments: 1..=1,
        run: |a, _| Ok(Value::Real(real(&a[0])?.ln())),
    },
    Function {
        name: "exp",
        arguments: 1..=1,
        run: |a, _| Ok(Value::Real(real(&a[0])?.exp())),
    },
    Function {
        name: "power",
        arguments: 2..=2,
        run: |a, _| Ok(Value::Real(real(&a[0])?.powf(real(&a[1])?))),
    },
    Function {
        name: "pi",
        arguments: 0..=0,
        run: |_, _| Ok(Value::Real(std::f64::consts::PI)),
    },
];

fn too_big() -> String {
    "the result does not fit into 64 bits".to_owned()
}

fn real(value: &Value) -> Result<f64, String> {
    match value {
        Value::Integer(n) => Ok(*n as f64),
        Value::Real(x) => Ok(*x),
        other => Err(format!("expected a number, found {}", other.data_type())),
    }
}

fn range(arguments: &[Value]) -> Result<(i64, i64), String> {
    match arguments {
        [Value::Integer(low), Value::Integer(high), ..] if low <= high => Ok((*low, *high)),
        [Value::Integer(_), Value::Integer(_), ..] => {
            Err("the range is empty: its lower bound is above its upper one".to_owned())
        }
        _ => Err("the bounds of a range must be whole numbers".to_owned()),
    }
}

fn parameter(value: &Value, least: f64, most: f64) -> Result<f64, String> {
    let parameter = real(value)?;
    if (least..=most).contains(&parameter) {
        Ok(parameter)
    } else if most == f64::MAX {
        Err(format!(
            "the parameter of the distribution must be at least {least}"
        ))
    } else {
        Err(format!(
            "the parameter of the distribution must be within {least} and {most}"
        ))
    }
}

fn extreme(values: &[Value], better: fn(f64, f64) -> bool) -> Result<Value, String> {
    let mut best = &values[0];
    for value in values {
        if better(real(value)?, real(best)?) {
            best = value;
        }
    }
    real(best)?;
    Ok(best.clone())
}

fn calculate(operator: Operator, a: &Value, b: &Value) -> Result<Value, String> {
    if let (Value::Integer(a), Value::Integer(b)) = (a, b) {
        if *b == 0 && matches!(operator, Operator::Divide | Operator::Remainder) {
            return Err("division by zero".to_owned());
        }
        return match operator {
            Operator::Add => a.checked_add(*b),
            Operator::Subtract => a.checked_sub(*b),
            Operator::Multiply => a.checked_mul(*b),
            Operator::Divide => a.checked_div(*b),
            Operator::Remainder => Some(a.wrapping_rem(*b)),
        }
        .map(Value::Integer)
        .ok_or_else(too_big);
    }
    let (a, b) = (real(a)?, real(b)?);
    Ok(Value::Real(match operator {
        Operator::Add => a + b,
        Operator::Subtract => a - b,
        Operator::Multiply => a * b,
        Operator::Divide if b == 0.0 => return Err("division by zero".to_owned()),
        Operator::Divide => a / b,
        Operator::Remainder => return Err("% is between whole numbers only".to_owned()),
    }))
}

impl Expression {
    /// Parses; `place` finds a variable's place.
    pub fn parse(text: &str, place: &dyn Fn(&str) -> Option<usize>) -> Result<Self, String> {
        let mut parser = Parser { rest: text, place };
        let expression = parser.sum()?;
        parser.space();
        if parser.rest.is_empty() {
            Ok(expression)
        } else {
            Err(format!(
                "cannot read the expression from here: {}",
                parser.rest
            ))
        }
    }

    /// Its value.
    pub fn evaluate(&self, variables: &[Value], random: &mut Random) -> Result<Value, String> {
        match self {
            Self::Constant(value) => Ok(value.clone()),
            Self::Variable(place) => Ok(variables[*place].clone()),
            Self::Negative(of) => calculate(
                Operator::Subtract,
                &Value::Integer(0),
                &of.evaluate(variables, random)?,
            ),
            Self::Binary(operator, a, b) => {
                let a = a.evaluate(variables, random)?;
                let b = b.evaluate(variables, random)?;
                calculate(*operator, &a, &b)
            }
            Self::Call(function, arguments) => {
                let arguments = arguments
                    .iter()
                    .map(|argument| argument.evaluate(variables, random))
                    .collect::<Result<Vec<_>, _>>()?;
                (function.run)(&arguments, random)
                    .map_err(|why| format!("{}: {why}", function.name))
            }
        }
    }
}

struct Parser<'text> {
    rest: &'text str,
    place: &'text dyn Fn(&str) -> Option<usize>,
}

impl<'text> Parser<'text> {
    fn space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn eat(&mut self, token: char) -> bool {
        self.space();
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn word(&mut self, is_part: fn(char) -> bool) -> &'text str {
        let end = self.rest.find(|c| !is_part(c)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }

    fn sum(&mut self) -> Result<Expression, String> {
        let mut left = self.product()?;
        loop {
            let operator = if self.eat('+') {
                Operator::Add
            } else if self.eat('-') {
                Operator::Subtract
            } else {
                return Ok(left);
            };
            left = Expression::Binary(operator, Box::new(left), Box::new(self.product()?));
        }
    }

    fn product(&mut self) -> Result<Expression, String> {
        let mut left = self.unary()?;
        loop {
            let operator = if self.eat('*') {
                Operator::Multiply
            } else if self.eat('/') {
                Operator::Divide
            } else if self.eat('%') {
                Operator::Remainder
            } else {
                return Ok(left);
            };
            left = Expression::Binary(operator, Box::new(left), Box::new(self.unary()?));
        }
    }

    fn unary(&mut self) -> Result<Expression, String> {
        if self.eat('-') {
            return Ok(Expression::Negative(Box::new(self.unary()?)));
        }
        self.eat('+');
        self.atom()
    }

    fn atom(&mut self) -> Result<Expression, String> {
        if self.eat('(') {
            let inner = self.sum()?;
            return if self.eat(')') {
                Ok(inner)
            } else {
                Err(") is missing".to_owned())
            };
        }
        self.space();
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        match self.rest.chars().next() {
            Some(':') => {
                self.rest = &self.rest[1..];
                let name = self.word(is_name);
                (self.place)(name).map(Expression::Variable).ok_or_else(|| {
                    format!("the variable :{name} has no value here; \\set it before, or give --define {name}=…")
                })
            }
            Some(c) if c.is_ascii_digit() || c == '.' => {
                let mut text = self.word(|c| c.is_ascii_digit() || c == '.').to_owned();
                if let Some(exponent) = self.rest.strip_prefix(['e', 'E']) {
                    let sign = exponent.starts_with(['-', '+']);
                    text.push_str(&self.rest[..1 + usize::from(sign)]);
                    self.rest = &exponent[usize::from(sign)..];
                    text.push_str(self.word(|c| c.is_ascii_digit()));
                }
                if let Ok(n) = text.parse() {
                    return Ok(Expression::Constant(Value::Integer(n)));
                }
                text.parse()
                    .map(|x| Expression::Constant(Value::Real(x)))
                    .map_err(|_| format!("{text} is not a number"))
            }
            Some(c) if c.is_ascii_alphabetic() => self.call(is_name),
            Some(c) => Err(format!(
                "expected a number, a :variable or a function, found {c}"
            )),
            None => Err("the expression ends too early".to_owned()),
        }
    }

    fn call(&mut self, is_name: fn(char) -> bool) -> Result<Expression, String> {
        let name = self.word(is_name).to_ascii_lowercase();
        let function = FUNCTIONS
            .iter()
            .find(|function| function.name == name)
            .ok_or_else(|| {
                let known: Vec<_> = FUNCTIONS.iter().map(|function| function.name).collect();
                format!("{name} is not supported; known are {}", known.join(", "))
            })?;
        if !self.eat('(') {
            return Err(format!("( is missing after {name}"));
        }
        let mut arguments = Vec::new();
        if !self.eat(')') {
            loop {
                arguments.push(self.sum()?);
                if self.eat(')') {
                    break;
                }
                if !self.eat(',') {
                    return Err(format!("expected , or ) in the arguments of {name}"));
                }
            }
        }
        if function.arguments.contains(&arguments.len()) {
            Ok(Expression::Call(function, arguments))
        } else {
            Err(format!(
                "{name} wants {} arguments, not {}",
                function.arguments.start(),
                arguments.len()
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evaluate(text: &str) -> Result<Value, String> {
        let place = |name: &str| (name == "n").then_some(0);
        Expression::parse(text, &place)?.evaluate(&[Value::Integer(10)], &mut Random::new(1))
    }

    #[test]
    fn arithmetic_binds_as_in_school_and_whole_numbers_stay_whole() {
        for (text, expected) in [
            ("1 + 2 * 3", 7),
            ("(1 + 2) * 3", 9),
            ("7 / 2", 3),
            ("-7 / 2", -3),
            ("-7 % 4", -3),
            ("- -3 - -4", 7),
            ("10 - 2 - 3", 5),
            (":n * 100", 1000),
            ("abs(-3) + greatest(1, :n, 5) + least(4, 2)", 15),
            ("int(7.9)", 7),
            ("mod(17, 5)", 2),
        ] {
            assert_eq!(evaluate(text), Ok(Value::Integer(expected)), "{text}");
        }
        for (text, expected) in [
            ("7 / 2.0", 3.5),
            ("1.5e2", 150.0),
            ("double(3)", 3.0),
            ("sqrt(16)", 4.0),
            ("power(2, 10)", 1024.0),
            ("ln(exp(1))", 1.0),
            ("pi() - pi()", 0.0),
        ] {
            assert_eq!(evaluate(text), Ok(Value::Real(expected)), "{text}");
        }
    }

    #[test]
    fn random_functions_draw_within_their_bounds() {
        for text in [
            "random(1, :n)",
            "random_gaussian(1, :n, 2.5)",
            "random_exponential(1, 5 + 5, 3)",
            "random_zipfian(1, :n, 1.2)",
        ] {
            match evaluate(text) {
                Ok(Value::Integer(n)) if (1..=10).contains(&n) => {}
                other => panic!("{text}: {other:?}"),
            }
        }
    }

    #[test]
    fn what_cannot_be_read_or_computed_is_said() {
        for (text, part) in [
            ("", "ends too early"),
            ("1 +", "ends too early"),
            ("(1", ") is missing"),
            ("1 2", "from here: 2"),
            (":unknown", "the variable :unknown has no value"),
            ("shuffle(1)", "shuffle is not supported"),
            ("random(1)", "wants 2 arguments, not 1"),
            ("random(5, 1)", "range is empty"),
            ("random(1.5, 2)", "must be whole numbers"),
            ("random_zipfian(1, 10, 1)", "within 1.001 and 1000"),
            ("random_gaussian(1, 10, 1)", "at least 2"),
            ("1 / 0", "division by zero"),
            ("9223372036854775807 + 1", "64 bits"),
            ("1 = 1", "from here: = 1"),
        ] {
            let error = evaluate(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
