"""The REST API as API Gateway sees it: one definition, generated from the routes of the Chalice app."""
