//! The rooms behind the library's face, for the tests of this repository and for its command line, which measures them. Nothing
//! here is promised to anybody else.

macro_rules! rooms {
    ($($room:ident)*) => {
        $(pub mod $room {
            pub use crate::$room::*;
        })*
    };
}

rooms! {
    answer blueprint cache chat check context cpu device embed executor gpu kv model perplexity plan profile reference scheduler
    select session spec step synthetic tokenizer
}
