"""Tables, the store that writes them, and the queries."""
