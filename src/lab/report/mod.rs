//! What the lab measured, and how it is shown. All of it is PURE: values in, text out.
//! The experiments fill `model.rs`; each other file is one way to show it.

mod axis;
mod bars;
mod chart;
mod figure;
mod lines;
mod long_form;
mod model;
mod page;
mod read;
#[cfg(test)]
mod samples;
mod strip;
mod svg;
mod terminal;
mod textbook;
mod unit;

pub(crate) use chart::pictures;
pub(crate) use figure::Cell;
pub(crate) use long_form::csv;
pub(crate) use model::{
    Chart, Column, Experiment, Machine, Mark, Report, SCHEMA, Scale, Table, textbook_columns,
};
pub(crate) use page::html;
pub(crate) use terminal::text;
pub(crate) use unit::Unit;
