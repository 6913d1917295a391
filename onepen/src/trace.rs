//! Spans and events through the `tracing` facade, when its feature is on.
//!
//! Names and numbers only: labels, counts, durations. Never SQL, never values.

/// Enters a span until the end of the enclosing block.
macro_rules! span {
    ($name:literal $(, $field:ident = $value:expr)* $(,)?) => {
        #[cfg(feature = "tracing")]
        let _span = tracing::debug_span!(target: "onepen", $name, $($field = $value),*).entered();
    };
}

/// Reports something at a level.
macro_rules! event {
    ($level:ident, $message:literal $(, $field:ident = $value:expr)* $(,)?) => {
        #[cfg(feature = "tracing")]
        tracing::event!(target: "onepen", tracing::Level::$level, $($field = $value,)* $message);
    };
}

pub(crate) use {event, span};
