"""A small traffic world: road users, what the vehicle can see of them, and contacts on ground truth."""
