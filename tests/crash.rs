//! Law 5: whatever moment the process is killed at, the head ends right.
