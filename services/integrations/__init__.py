"""Besides the vendors: messages, bookings, knowledge, CRM, LLM; a simulation where none is set up."""
