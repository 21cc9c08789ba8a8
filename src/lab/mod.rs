//! `pagewire lab`: experiments, and the report that shows what they measured.

mod report;
