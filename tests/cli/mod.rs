//! What does a user of the commands read, and what does an operator find in `deploy/`?

mod commands;
mod files;
mod first_steps;

mod deploy;
mod exporting;
mod failing;
mod hostile;
mod narrowing;
mod projects;
mod training;
