"""What a model is sent: how a request is made, kept in few bytes, and made again from them."""
