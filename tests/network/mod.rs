//! What do clients read over sockets, of one server and of several?
//!
//! [`api`], [`flight`] and [`oip`] ask, as [`protocols`] and [`openapi`] have it, also for what [`failed`], or is
//! [`large`] or made of [`lists`], and [`browser`] should not, within [`bounds`]; in [`malformed`] nobody means well;
//! what fails tells no [`secrets`], and some clients are [`gone`] before they hear; they say [`who`] they are, and over
//! [`tls`] both prove it, and [`access`] is theirs by roles; [`push`] and [`streams`] bring rows; [`traces`] looks on,
//! and [`status`] says how all of it is. What is [`unchanged`] is not read again. [`servers`] share a registry,
//! [`shared`] ones an online store too, and a log that may come back [`older`] or lies [`sealed`] in a store, and
//! [`rolling`] restarts them one by one; predictions at one are [`labelled`] at another, and [`ramps`] are judged by
//! what all of them answered.

mod access;
mod api;
mod bounds;
mod browser;
mod failed;
mod flight;
mod gone;
mod large;
mod lists;
mod malformed;
mod oip;
mod openapi;
mod protocols;
mod secrets;
mod tls;
mod who;

mod projects;
pub(crate) mod push;
mod ramps;
mod streams;

mod traces;

mod status;
mod unchanged;

mod labelled;
mod older;
mod rolling;
mod sealed;
mod servers;
pub(crate) mod shared;
