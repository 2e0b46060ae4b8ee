//! A conversation with a model, on the best device there is.
//!
//! ```text
//! cargo run --release -p engine --example chat -- MODEL.gguf
//! ```

use std::io::{BufRead as _, Write as _};
use std::sync::atomic::AtomicBool;

use engine::Message;
use engine::{Device, DeviceOptions, GenerateOptions, LoadOptions, Model, Scheduler, Session};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("which model? give a .gguf file")?;
    let device = Device::open(&DeviceOptions::default())?;
    let options = LoadOptions::default();
    let model = Model::load(&[device], &path, &options)?;
    let scheduler = Scheduler::start(&model, &options.context)?;
    let mut session = Session::new(&scheduler)?;
    let generate = GenerateOptions { max_tokens: Some(400), ..GenerateOptions::default() };
    let mut messages = Vec::new();
    for line in std::io::stdin().lock().lines() {
        messages.push(Message::user(&line?));
        // What the context holds of the conversation already is not computed again.
        session.push_chat(&messages)?;
        let answer = session.generate(&generate, &AtomicBool::new(false), &mut |text| {
            print!("{text}");
            // A terminal that is gone ends the program at the next line.
            let _ = std::io::stdout().flush();
        })?;
        println!();
        messages.push(Message::assistant(answer.said()));
    }
    Ok(())
}
