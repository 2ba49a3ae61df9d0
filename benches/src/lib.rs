//! Kiln's benches: what Kiln costs, as ratios against something measured in the same run.
//!
//! Every comparison is paired (A B A B ...), and what counts is the median of the ratios of the
//! pairs, so that a noisy machine slows both sides. Nothing here asserts a time: a bench fails only
//! when what it measures did not happen (a hit that was none).
//!
//! [`environment`] alone reads the environment, [`report`] alone prints. [`programs`],
//! [`project`], [`cargo`], [`place`] and [`s3`] set a measurement up, [`statistics`] evaluates it; the
//! benches are [`warm`], [`cold`], [`fresh`], [`scripts`], [`wrapper`], [`observation`], [`runs`], [`together`] and [`server`]. [`replay`] is the tool they compare
//! with: a wrapper that puts files back and checks nothing.

pub mod cargo;
pub mod cold;
pub mod command_line;
pub mod environment;
pub mod events;
pub mod failure;
pub mod fresh;
pub mod lookups;
pub mod observation;
pub mod past;
pub mod place;
pub mod programs;
pub mod project;
pub mod replay;
pub mod report;
pub mod runs;
pub mod s3;
pub mod scripts;
pub mod server;
pub mod statistics;
pub mod together;
pub mod tools;
pub mod transfers;
pub mod unit;
pub mod warm;
pub mod wrapper;
