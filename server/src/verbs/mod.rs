//! What can a node do? A struct for each verb, whose fields are the list of what it may touch.
//!
//! | verb | what it does |
//! |---|---|
//! | [`apply`] | checks definitions, plans, makes them live; [`follow`]: what other servers applied |
//! | [`push`] | takes rows into history and head at once |
//! | [`materialize`] | makes the head from history |
//! | [`train`] | makes a training set of a spine |
//! | [`export`] | gives out the rows of a view or a source as a table |
//! | [`predict`] | says what a model says of entities, of rows or whole tables |
//! | [`labels`] | keeps what came true; [`joined`]: beside what was predicted |
//! | [`verify`] | compares what was served with history |
//! | [`can`] | explains who may do what |
//! | [`seal`] | writes pushed rows into segments now |
//! | [`scrub`] | reads all that is kept, and says what is damaged |
//! | [`backup`] | copies all that counts, as of one moment |
//! | [`keys`] | makes, lists and revokes API keys |
//!
//! Architecture invariant: a verb knows no other, but for `joined`, which reads what `labels` keeps; what two share
//! lies a floor below.

pub mod apply;
pub mod backup;
pub mod can;
pub mod export;
pub mod follow;
pub mod joined;
pub mod keys;
pub mod labels;
pub mod materialize;
pub mod predict;
pub mod push;
pub mod scrub;
pub mod seal;
pub mod train;
pub mod verify;
