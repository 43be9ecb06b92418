"""The page at `/` on which people try the served models; it asks the REST API as any other client."""
