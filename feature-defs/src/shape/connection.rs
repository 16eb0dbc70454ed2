//! Which keys does a connection have?

use super::object::{Object, Shape};
use super::table::{DESCRIPTION, OWNER, SHARE, TAGS, required};

pub(super) static CONNECTION: Object = Object {
    noun: "a connection",
    doc: "A part of the network that definitions may lead to. What none of them names, no definition leads to.",
    keys: &[
        required("kind", Shape::Constant("Connection"), "Says that this document declares a connection."),
        required("name", Shape::ModelName, "Unique among connections."),
        DESCRIPTION,
        OWNER,
        TAGS,
        SHARE,
        required(
            "url",
            Shape::Url,
            "What may be reached: the objects of a bucket below a path, as `s3://bucket/folder/`, or servers, as \
             `kafka://a:9092,b:9092`, `redis://host:6379` or `https://mlflow:5000/`.",
        ),
    ],
};
