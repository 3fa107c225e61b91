"""Services besides the vendors: messages, bookings, knowledge, CRM, LLM; where none is set up, a simulation."""
