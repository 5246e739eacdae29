//! stub
mod api;
mod config;
mod report;
fn main() {}
