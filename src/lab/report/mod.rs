//! What the lab measured, and how it is shown. All of it is PURE: values in, text out.
//! The experiments fill `model.rs`; each other file is one way to show it.
#![expect(dead_code, unused_imports, reason = "the experiments that fill it come next")]

mod figure;
mod model;
mod unit;

pub(crate) use figure::{Cell, Figure, NOISY_SPREAD};
pub(crate) use model::{
    Chart, Column, Experiment, Machine, Mark, Report, Row, SCHEMA, Scale, Table, textbook_columns,
};
pub(crate) use unit::{Better, Unit};
