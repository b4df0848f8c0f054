//! Findings to understanding: confidence, links between legs, causes and consequences, incidents, and the report.

pub mod report;
