//! What cannot run as a stream: `docs/refusals.md` says so with statements and messages, both true, and leaves none out.
//!
//! `REFUSALS_COMPLETE=1 cargo test --test refusals` writes the messages into the page.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use datafusion::error::DataFusionError;
use datafusion::prelude::SessionContext;
use streamlines::{Setup, StreamlinesContext, parse_statements, render_error};

const PAGE: &str = "docs/refusals.md";

/// Reasons that no statement meets: they are there for nodes of a user's own.
const OF_NODES: [&str; 2] = ["it has no streaming form", "it may hold rows back until the stream ends"];

/// A heading of the page and the blocks under it.
struct Entry {
    heading: String,
    blocks: Vec<Block>,
}

struct Block {
    language: String,
    text: String,
}

/// The page's headings that have blocks.
fn entries(page: &str) -> Vec<Entry> {
    let mut entries: Vec<Entry> = vec![];
    let mut is_open = false;
    for line in page.lines() {
        if let Some(language) = line.strip_prefix("```") {
            is_open = !is_open;
            if is_open {
                let block = Block { language: language.to_string(), text: String::new() };
                entries.last_mut().unwrap().blocks.push(block);
            }
        } else if is_open {
            let block = entries.last_mut().unwrap().blocks.last_mut().unwrap();
            block.text += &format!("{line}\n");
        } else if line.starts_with('#') {
            entries.push(Entry { heading: line.trim_start_matches(['#', ' ']).to_string(), blocks: vec![] });
        }
    }
    entries.retain(|entry| !entry.blocks.is_empty());
    entries
}

/// Runs the statements of a text.
async fn run(ctx: &SessionContext, sql: &str) -> Result<(), DataFusionError> {
    for statement in parse_statements(ctx, sql)? {
        ctx.plan_statement(statement).await?.collect().await?;
    }
    Ok(())
}

/// Plans them, without reading a row.
async fn plan(ctx: &SessionContext, sql: &str) -> Result<(), DataFusionError> {
    for statement in parse_statements(ctx, sql)? {
        ctx.plan_statement(statement).await?.create_physical_plan().await?;
    }
    Ok(())
}

async fn session(declarations: &str) -> SessionContext {
    let ctx = Setup::stream().session().unwrap();
    run(&ctx, declarations).await.unwrap();
    ctx
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_refusal_is_as_the_page_says() {
    let mut page = fs::read_to_string(PAGE).unwrap();
    let is_complete = std::env::var_os("REFUSALS_COMPLETE").is_none();
    let entries = entries(&page);
    let (declarations, refusals) = entries.split_first().unwrap();
    let declarations = &declarations.blocks[0].text;
    for Entry { heading, blocks } in refusals {
        let languages: Vec<&str> = blocks.iter().map(|block| block.language.as_str()).collect();
        assert!(matches!(languages.as_slice(), ["sql", "text", "sql", ..]), "{heading}: {languages:?}");
        let (refused, told) = (&blocks[0].text, &blocks[1].text);
        let error = plan(&session(declarations).await, refused).await.expect_err(heading);
        let is = format!("error: {}\n", render_error(refused, &error));
        if !is_complete {
            let written = |told: &str| format!("```sql\n{refused}```\n\n```text\n{told}```\n");
            page = page.replace(&written(told), &written(&is));
            continue;
        }
        assert_eq!(&is, told, "{heading}");
        let is_setting = refused.contains("SET streamlines.") && !refused.contains("EMIT");
        assert!(is.contains("\n  help: ") && (is_setting || is.contains("(line ")), "{heading}: {is}");
        for instead in &blocks[2..] {
            let ran = run(&session(declarations).await, &instead.text).await;
            assert!(ran.is_ok(), "{heading}: {}", render_error(&instead.text, &ran.unwrap_err()));
        }
    }
    fs::write(PAGE, page).unwrap();
}

#[test]
fn the_page_has_every_reason_for_which_a_query_is_refused() {
    let page = fs::read_to_string(PAGE).unwrap();
    let mut reasons = 0;
    for file in sources(Path::new("src")) {
        let text = fs::read_to_string(&file).unwrap();
        for (_, call) in text.match_indices("Error::refused(").map(|(at, name)| text.split_at(at + name.len())) {
            let Some(reason) = literal(&arguments(call)[1]).filter(|reason| !OF_NODES.contains(&reason.as_str()))
            else {
                continue;
            };
            // What stands between braces is filled in.
            let is_shown = reason.split(['{', '}']).step_by(2).all(|part| page.contains(part));
            assert!(is_shown, "{}: not in {PAGE}: {reason}", file.display());
            reasons += 1;
        }
    }
    assert!(reasons > 20, "{reasons}");
}

fn sources(folder: &Path) -> Vec<std::path::PathBuf> {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] }).collect()
}

/// The arguments of a call, from after its parenthesis on.
fn arguments(call: &str) -> Vec<String> {
    let (mut arguments, mut depth, mut is_text) = (vec![String::new()], 0, false);
    for c in call.chars() {
        is_text ^= c == '"';
        match c {
            '(' if !is_text => depth += 1,
            ')' if !is_text && depth == 0 => break,
            ')' if !is_text => depth -= 1,
            ',' if !is_text && depth == 0 => {
                arguments.push(String::new());
                continue;
            }
            _ => {}
        }
        arguments.last_mut().unwrap().push(c);
    }
    arguments
}

/// The first text in a piece of code.
fn literal(code: &str) -> Option<String> {
    code.split('"').nth(1).map(str::to_string)
}
