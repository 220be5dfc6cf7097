"""The dashboard: pages at `/dashboard` for those who watch and steer the service in a browser."""
