"""Pictures of a report, as SVG that follows the page's colours."""
