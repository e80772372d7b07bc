"""API Gateway (REST APIs), served over HTTP on loopback: routes, authorizer, proxy events, own answers, limits."""
