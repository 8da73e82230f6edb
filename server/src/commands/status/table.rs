//! Nodes as a table for people.

use protocol::{NodeStatus, Role};

use super::survey::Node;

const COLUMNS: [&str; 11] = [
    "NODE", "ADDRESS", "ROLE", "TERM", "LEADER", "COMMIT", "APPLIED", "DURABLE", "REVISION",
    "DISK", "LAG",
];

/// One line for each node below a line of headings; why nodes did not answer follows.
pub(super) fn table(nodes: &[Node]) -> String {
    let rows: Vec<Vec<String>> = nodes.iter().map(row).collect();
    let widths: Vec<usize> = (0..COLUMNS.len()).map(|column| width(&rows, column)).collect();
    let headings = COLUMNS.map(str::to_owned);
    let mut text = line(&headings, &widths);
    for row in &rows {
        text.push_str(&line(row, &widths));
    }
    for node in nodes {
        if let Err(problem) = &node.status {
            let node = node.id.map_or_else(String::new, |id| format!("node {id}: "));
            text.extend(["\n", &node, problem]);
        }
    }
    if text.ends_with('\n') { text } else { text + "\n" }
}

/// The name of a role.
pub(super) fn role_name(role: Role) -> &'static str {
    match role {
        Role::Follower => "follower",
        Role::Candidate => "candidate",
        Role::Leader => "leader",
    }
}

fn row(node: &Node) -> Vec<String> {
    let dash = || "-".to_owned();
    let lag = node.lag().map_or_else(dash, |(entries, remark)| match remark {
        Some(remark) => format!("{entries} ({remark})"),
        None => entries.to_string(),
    });
    let id = node.id.map_or_else(dash, |id| id.to_string());
    let address = if node.address.is_empty() { dash() } else { node.address.clone() };
    let mut row = vec![id, address];
    if let Ok(status) = &node.status {
        row.extend(cells(status));
    } else {
        row.push("unreachable".to_owned());
        row.extend(std::iter::repeat_with(dash).take(COLUMNS.len() - 4));
    }
    row.push(lag);
    row
}

fn cells(status: &NodeStatus) -> [String; 8] {
    let leader = status.leader.as_ref().map_or_else(|| "-".to_owned(), |it| it.node.to_string());
    let access = if status.disk.direct { "direct" } else { "buffered" };
    [
        role_name(status.role).to_owned(),
        status.term.to_string(),
        leader,
        status.commit_index.to_string(),
        status.applied_index.to_string(),
        status.durable_index.to_string(),
        status.revision.to_string(),
        match status.disk.damaged {
            0 => format!("{}/{access}", status.disk.backend),
            damaged => format!("{}/{access}, {damaged} damaged", status.disk.backend),
        },
    ]
}

fn width(rows: &[Vec<String>], column: usize) -> usize {
    let cells = rows.iter().map(|row| row[column].chars().count());
    cells.chain([COLUMNS[column].len()]).max().expect("there is the heading")
}

fn line(cells: &[String], widths: &[usize]) -> String {
    let padded = |(cell, width): (&String, &usize)| format!("{cell:<width$}");
    let cells: Vec<String> = cells.iter().zip(widths).map(padded).collect();
    format!("{}\n", cells.join("  ").trim_end())
}

#[cfg(test)]
mod tests {
    use super::super::survey::tests::nodes;
    use super::*;

    #[test]
    fn table_has_a_line_for_each_node_and_says_why_one_is_missing() {
        let expected = "\
NODE  ADDRESS  ROLE         TERM  LEADER  COMMIT  APPLIED  DURABLE  REVISION  DISK                     LAG
1     a:1      leader       3     1       90      89       88       70        uring/direct             -
2     b-too:1  follower     3     1       90      89       88       70        uring/direct, 1 damaged  3
3     c:1      unreachable  -     -       -       -        -        -         -                        9 (disconnected)

node 3: c:1 refused
";
        assert_eq!(table(&nodes()), expected);
    }
}
