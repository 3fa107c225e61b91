"""What an operator sees: one module a screen, `widgets/` for the parts they share."""

__product__ = "callboard"
