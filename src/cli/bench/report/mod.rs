//! The report: one page that needs nothing else, with a table beside each plot.

mod axis;
mod bars;
mod lines;
mod names;
mod plots;
mod svg;

use super::results::{AtRate, Measured, Results};
use super::table;
use svg::escaped;

const STYLE: &str = include_str!("style.css");

/// The page.
pub fn page(results: &Results) -> String {
    let mut body = String::new();
    body.push_str(&conditions(results));
    let plots = plots::all(results);
    for section in [plots.throughput, plots.scaling] {
        body.push_str(&section);
    }
    if !results.throughput.is_empty() {
        let rows = results.throughput.iter().map(|row| table::throughput_row(results, row));
        body.push_str(&tabled("All figures", &table::THROUGHPUT, rows.collect()));
    }
    body.push_str(&plots.memory);
    body.push_str(&plots.latency);
    if !results.latency.is_empty() {
        let rows = results.latency.iter().map(table::latency_row);
        body.push_str(&tabled("Latency at fixed rates", &table::LATENCY, rows.collect()));
    }
    let title = "Streamlines benchmark";
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}</title>\n<style>\n{STYLE}</style>\n\
         </head>\n<body>\n<main>\n<h1>{title}</h1>\n{}{body}</main>\n</body>\n</html>\n",
        scenarios(&results.throughput, &results.latency)
    )
}

/// What each scenario asks.
fn scenarios(throughput: &[Measured], latency: &[AtRate]) -> String {
    let asked = throughput.iter().map(|row| &row.asked).chain(latency.iter().map(|row| &row.asked));
    let mut told: Vec<(&str, &str)> = vec![];
    for asked in asked {
        if !told.iter().any(|(name, _)| *name == asked.scenario) {
            told.push((&asked.scenario, &asked.what));
        }
    }
    let items = told.iter().map(|(name, what)| format!("<li><b>{}</b> {}</li>\n", escaped(name), escaped(what)));
    format!("<ul class=\"scenarios\">\n{}</ul>\n", items.collect::<String>())
}

fn conditions(results: &Results) -> String {
    let items = table::all_conditions(results)
        .into_iter()
        .map(|(name, value)| format!("<dt>{}</dt><dd>{}</dd>\n", escaped(&name), escaped(&value)));
    format!("<section>\n<h2>Conditions</h2>\n<dl>\n{}</dl>\n</section>\n", items.collect::<String>())
}

/// Rows under a header; what is to know of a row, the cell beyond the header, is below it.
fn tabled(title: &str, header: &[&str], rows: Vec<Vec<String>>) -> String {
    let class = |column: usize| if column < table::THROUGHPUT_TEXT { "" } else { " class=\"n\"" };
    let head = header.iter().enumerate();
    let head: String =
        head.map(|(column, name)| format!("<th scope=\"col\"{}>{}</th>", class(column), escaped(name))).collect();
    let row = |row: Vec<String>| {
        let cells = row.iter().take(header.len()).enumerate();
        let cells = cells.map(|(column, cell)| format!("<td{}>{}</td>", class(column), escaped(cell)));
        let note = row
            .get(header.len())
            .map(|note| format!("<tr class=\"note\"><td colspan=\"{}\">{}</td></tr>\n", header.len(), escaped(note)));
        format!("<tr>{}</tr>\n{}", cells.collect::<String>(), note.unwrap_or_default())
    };
    format!(
        "<section>\n<h2>{title}</h2>\n<div class=\"wide\">\n<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{}\
         </tbody>\n</table>\n</div>\n</section>\n",
        rows.into_iter().map(row).collect::<String>()
    )
}
