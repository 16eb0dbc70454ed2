//! What does a reply say?

use redis::{ErrorKind, RedisError, RedisResult, Value};

/// A reply, unless it is an error.
pub(super) fn sound(value: Value) -> RedisResult<Value> {
    match value {
        Value::ServerError(error) => Err(error.into()),
        value => Ok(value),
    }
}

pub(super) fn bytes(value: Value) -> RedisResult<Option<Vec<u8>>> {
    match sound(value)? {
        Value::Nil => Ok(None),
        Value::BulkString(bytes) => Ok(Some(bytes)),
        _ => Err(unexpected()),
    }
}

/// A reply is not of the type that the command's documentation gives.
pub(super) fn unexpected() -> RedisError {
    (ErrorKind::UnexpectedReturnType, "the server sent something else than was asked for").into()
}
