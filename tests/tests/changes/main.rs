//! What changes the answer: sources, flags, tools and libraries, each against a compile without Kiln.

mod flags;
mod native;
mod source;
mod tools;
